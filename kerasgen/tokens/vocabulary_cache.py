"""Computes the vocabularies that a corpus could give a tokenizer, and caches them for later runs.

A file is named by a digest of the texts and the tokenizer, as a token store is, and holds its own SHA-256; one that is
damaged or can't be written costs the time to count again, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasgen import cache
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.vocabulary import AdaptedVocabulary, Texts, VocabularyUse, extend, trim, use_of

FORMAT: Final = 1
FOLDER: Final = "vocabularies"


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
    texts: Texts, tokenizer: ByteLevelBPE, *, digest: str, extending: bool, directory: Path | None
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
        pairs = [(left, right) for left, right in stored["merges"]]
        extended = AdaptedVocabulary(
            tokenizer.rebuilt({token: n for n, token in enumerate(stored["tokens"])}, pairs),
            tuple(map(tuple, stored["sources"])),
            stored["first_added"],
            stored["tokens_per_character"],
        )
    return CandidateVocabularies(use, trim(tokenizer, use), extended)


def tokens_per_character(
    sample: Sequence[str], tokenizer: ByteLevelBPE, *, digest: str, directory: Path | None
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
    assert isinstance(adapted.tokenizer, ByteLevelBPE)
    vocabulary = adapted.tokenizer.vocabulary
    return {
        "tokens": sorted(vocabulary, key=vocabulary.__getitem__),
        "merges": [merge.split(" ") for merge in adapted.tokenizer.merges],
        "sources": [list(ids) for ids in adapted.sources],
        "first_added": adapted.first_added,
        "tokens_per_character": adapted.tokens_per_character,
    }


def _kept(directory: Path | None, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    path = None if directory is None else directory / FOLDER / name
    return cache.kept(path, make, again="the corpus is counted again")
