"""Computes the vocabularies that a corpus could give a tokenizer, and caches them for later runs.

A file is named by a digest of the texts and the tokenizer, as a token store is, and holds its own SHA-256; one that is
damaged or can't be written costs the time to count again, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from kerasgen import cache
from kerasgen.files.path_arguments import path_argument
from kerasgen.tokens import pretrained_vocabulary, vocabulary
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.pretrained_files import restored, state_of
from kerasgen.tokens.vocabulary import AdaptedVocabulary, Texts, VocabularyUse, use_of

FORMAT: Final = 1
FOLDER: Final = "vocabularies"

Adaptable: TypeAlias = ByteLevelBPE | PretrainedTokenizer
"""The tokenizers whose vocabularies can be changed."""


@dataclass(frozen=True, eq=False)
class CandidateVocabularies:
    """The use of a tokenizer by texts, and the vocabularies that would fit them.

    Args:
        use: the use of each of its ids.
        trimmed: the tokenizer without what the texts don't use.
        extended: with whole characters and frequent pieces besides, or None if it was not asked for.
    """

    use: VocabularyUse
    trimmed: AdaptedVocabulary
    extended: AdaptedVocabulary | None


def candidate_vocabularies(
    texts: Texts, tokenizer: Adaptable, *, digest: str, extending: bool, directory: str | os.PathLike[str] | None
) -> CandidateVocabularies:
    """Return the results of `trim` and, if asked for, `extend`, from the cache if they are there.

    Args:
        texts: gives the texts anew at each call; it is not called if the cache has the answer.
        tokenizer: the old one.
        digest: stands for the texts.
        extending: whether `extended` is asked for.
        directory: the directory of the cache, or None to keep nothing.
    """
    name = hashlib.sha256(json.dumps([FORMAT, digest, tokenizer.digest()], allow_nan=False).encode()).hexdigest()
    uses = _kept(directory, f"{name}.use.json", lambda: _use_as_json(use_of(texts(), tokenizer)))
    counts = np.zeros(tokenizer.vocabulary_size, np.int64)
    counts[uses["ids"]] = uses["counts"]
    use = VocabularyUse(counts, uses["characters"])
    extended = None
    if extending and use.characters:
        stored = _kept(directory, f"{name}.extended.json", lambda: _adapted_as_json(extend(tokenizer, texts)))
        extended = AdaptedVocabulary(
            _stored_tokenizer(tokenizer, stored),
            tuple(map(tuple, stored["sources"])),
            stored["first_added"],
            stored["tokens_per_character"],
        )
    return CandidateVocabularies(use, trim(tokenizer, use), extended)


def trim(tokenizer: Adaptable, use: VocabularyUse) -> AdaptedVocabulary:
    """Return the tokenizer without the tokens that texts of this use don't need.

    Raises:
        TokenArgumentError: `use` is of another vocabulary, or the tokenizer is of a kind that can't be changed.
    """
    if isinstance(tokenizer, PretrainedTokenizer):
        return pretrained_vocabulary.trim(tokenizer, use)
    return vocabulary.trim(tokenizer, use)


def extend(tokenizer: Adaptable, texts: Texts) -> AdaptedVocabulary:
    """Return the tokenizer with whole characters and frequent pieces of the texts, and without what they don't need.

    Raises:
        TokenArgumentError: the tokenizer is of a kind that can't be changed.
    """
    if isinstance(tokenizer, PretrainedTokenizer):
        return pretrained_vocabulary.extend(tokenizer, texts)
    return vocabulary.extend(tokenizer, texts)


def tokens_per_character(
    sample: Sequence[str], tokenizer: Adaptable, *, digest: str, directory: str | os.PathLike[str] | None
) -> tuple[float, float]:
    """Return the tokens per character of a sample of texts, as it is and as `extend` would spell it.

    Args:
        sample: at least one character.
        tokenizer: the old one.
        digest: stands for all the texts.
        directory: the directory of the cache, or None to keep nothing.
    """
    name = hashlib.sha256(json.dumps([FORMAT, digest, tokenizer.digest()], allow_nan=False).encode()).hexdigest()

    def count() -> dict[str, Any]:
        extended = extend(tokenizer, lambda: sample)
        return {"before": use_of(sample, tokenizer).tokens_per_character, "after": extended.tokens_per_character}

    figures = _kept(directory, f"{name}.sample.json", count)
    return float(figures["before"]), float(figures["after"])


def _use_as_json(use: VocabularyUse) -> dict[str, Any]:
    ids = np.flatnonzero(use.counts)
    return {"ids": ids.tolist(), "counts": use.counts[ids].tolist(), "characters": use.characters}


def _adapted_as_json(adapted: AdaptedVocabulary) -> dict[str, Any]:
    tokenizer = adapted.tokenizer
    if isinstance(tokenizer, PretrainedTokenizer):
        held: dict[str, Any] = {"file": base64.b64encode(tokenizer.codec.content()).decode()}
    else:
        ids = tokenizer.vocabulary
        merges = [merge.split(" ") for merge in tokenizer.merges]
        held = {"tokens": sorted(ids, key=ids.__getitem__), "merges": merges}
    return {
        **held,
        "sources": [list(ids) for ids in adapted.sources],
        "first_added": adapted.first_added,
        "tokens_per_character": adapted.tokens_per_character,
    }


def _stored_tokenizer(old: Adaptable, stored: Mapping[str, Any]) -> Adaptable:
    if isinstance(old, PretrainedTokenizer):
        return restored(state_of(old) | {"content": base64.b64decode(stored["file"]), "further": {}})
    pairs = [(left, right) for left, right in stored["merges"]]
    return old.rebuilt({token: n for n, token in enumerate(stored["tokens"])}, pairs)


def _kept(directory: str | os.PathLike[str] | None, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    path = None if directory is None else path_argument(directory, name="directory") / FOLDER / name
    return cache.kept(path, make, again="the corpus is counted again")
