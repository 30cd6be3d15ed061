"""Trims a pretrained tokenizer: removes the tokens that a corpus doesn't need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.bpe_files import pair_of
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.vocabulary import AdaptedVocabulary, VocabularyUse, merges_of

_BYTE_TOKENS: Final = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def trim(tokenizer: PretrainedTokenizer, use: VocabularyUse) -> AdaptedVocabulary:
    """Return the tokenizer without the tokens that the texts don't need.

    Special and added tokens stay, every token that occurs, and what those are merged from. The texts encode to the same
    pieces as before, for each merge that made them is still there, in the same order. Other texts encode too where the
    tokenizer has a token for each byte.

    Raises:
        TokenArgumentError: `use` is of another vocabulary, or the tokenizer is of a kind that can't be trimmed.
    """
    if len(use.counts) != tokenizer.vocabulary_size:
        raise TokenArgumentError(
            f"The use of {len(use.counts)} ids was counted, and the tokenizer has {tokenizer.vocabulary_size}. Count "
            "it with the same tokenizer."
        )
    content = json.loads(tokenizer.to_tokenizer_json()) if tokenizer.is_json else {"model": {}}
    model = content["model"]
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        kind = model.get("type") or tokenizer.codec.file_name
        raise TokenArgumentError(
            f"A vocabulary of the kind {kind!r} can't be trimmed; one of a tokenizer.json with BPE can. Use "
            "vocabulary='keep'."
        )
    pairs = [pair for pair in map(pair_of, model["merges"]) if pair is not None]
    ranks: dict[tuple[str, str], int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault(pair, rank)
    entries = content.get("added_tokens") or []
    kept_tokens = {*BYTE_OF_CHARACTER, *_BYTE_TOKENS, model.get("unk_token"), *tokenizer.special_tokens}
    kept_tokens |= {entry["content"] for entry in entries}
    needed: set[tuple[str, str]] = set()
    for token_id in np.flatnonzero(use.counts).tolist():
        token = tokenizer.id_to_token(token_id)
        kept_tokens |= {token, *token}  # the characters that it is merged from among them
        needed.update(merges_of(token, ranks))
    kept_tokens |= {left + right for left, right in needed}
    old = tokenizer.vocabulary
    order = sorted((token for token in old if token in kept_tokens), key=old.__getitem__)
    ids = {token: n for n, token in enumerate(order)}
    model["vocab"] = {token: ids[token] for token in order if token in model["vocab"]}
    model["merges"] = [list(pair) for pair in pairs if pair in needed]
    content["added_tokens"] = [{**entry, "id": ids[entry["content"]]} for entry in entries]
    content["post_processor"] = _renumbered(content.get("post_processor"), ids)
    trimmed = PretrainedTokenizer(
        JsonCodec(json.dumps(content, ensure_ascii=False, allow_nan=False), Path(JsonCodec.file_name)),
        start_token=tokenizer.start_token,
        end_tokens=[tokenizer.id_to_token(token_id) for token_id in tokenizer.end_token_ids],
        pad_token=tokenizer.pad_token,
        special_tokens=tuple(tokenizer.special_tokens),
    )
    sources = tuple((old[token],) for token in order)
    return AdaptedVocabulary(trimmed, sources, len(order), use.tokens_per_character)


def _renumbered(processor: Any, ids: Mapping[str, int]) -> Any:
    """Return a post-processor whose special tokens have their new ids."""
    if not isinstance(processor, dict):
        return processor
    renumbered = dict(processor)
    if isinstance(renumbered.get("special_tokens"), dict):
        renumbered["special_tokens"] = {
            name: {**token, "ids": [ids[token_name] for token_name in token["tokens"]]}
            for name, token in renumbered["special_tokens"].items()
        }
    if isinstance(renumbered.get("processors"), list):
        renumbered["processors"] = [_renumbered(step, ids) for step in renumbered["processors"]]
    return renumbered
