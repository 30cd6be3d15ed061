"""Makes a tokenizer of the vocabulary in a GGUF file, with llama.cpp's ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import ModelFormatError, TokenArgumentError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.json_codec import SPACE, JsonCodec
from kerasgen.tokens.pretokenization import GPT2, GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, Pretokenization
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.sentencepiece_codec import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    SentencePieceCodec,
    model_proto,
)

PREFIX: Final = "tokenizer.ggml."

_LLAMA3: Final = Pretokenization(LLAMA3_PATTERN, ignore_merges=True)
_DIGITS: Final = Pretokenization(GPT2_PATTERN, single_digits=True)

# What llama.cpp calls each way to cut a text before its merges. Source: llama.cpp's src/llama-vocab.cpp, the values of
# `tokenizer.ggml.pre` and the regular expressions that they stand for.
CUTS: Final[Mapping[str, Pretokenization]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"), GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Pretokenization(LLAMA3_PATTERN)),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan"), Pretokenization(QWEN2_PATTERN)),
}
_BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"
_FALCON_PUNCTUATION: Final = r"[\p{P}\$\+<=>\^~\|`]+"
_SHORTENED: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_STEPS: Final[Mapping[str, tuple[str, ...]]] = {
    "bloom": (_BLOOM,),
    "poro-chat": (_BLOOM,),
    "gpt3-finnish": (_BLOOM,),
    "viking": (_BLOOM, r"\p{N}"),
    "falcon": (_FALCON_PUNCTUATION, GPT2_PATTERN, "[0-9][0-9][0-9]"),
    "tekken": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "gpt-4o": (  # Phi-4 mini's
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{_SHORTENED}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{_SHORTENED}"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
"""Of those of several regular expressions, each cuts what the one before has left."""
_IGNORE_MERGES: Final = ("tekken",)


def from_gguf(fields: Mapping[str, Any], *, end_token_ids: Sequence[int] = ()) -> Tokenizer:
    """Return the tokenizer of a GGUF file's vocabulary.

    Byte-level BPE (`tokenizer.ggml.model` is `gpt2`) is cut as `tokenizer.ggml.pre` says; of the kind `llama`, pieces
    are merged by their scores as SentencePiece does. A file that doesn't say whether a text gets a start token has one
    if it is of the kind `llama`, as in llama.cpp.

    Args:
        fields: the file's values by key, those under `tokenizer.ggml.` at least; the rest is not looked at.
        end_token_ids: further ids that end a text.

    Raises:
        ModelFormatError: the kind or the way to cut a text is not known, or something is missing or contradictory.
        MissingDependencyError: the kind `llama` needs the package `sentencepiece`.
    """
    tokenizer_fields = {key.removeprefix(PREFIX): value for key, value in fields.items() if key.startswith(PREFIX)}
    try:
        tokens = [str(token) for token in tokenizer_fields["tokens"]]
        kind = str(tokenizer_fields["model"])
    except KeyError as cause:
        raise ModelFormatError(
            f"The GGUF file has no {PREFIX + cause.args[0]!r}, so its tokenizer is unknown."
        ) from None
    types = [int(token_type) for token_type in tokenizer_fields.get("token_type", [NORMAL] * len(tokens))]
    if len(types) != len(tokens):
        raise ModelFormatError(f"The GGUF file has {len(tokens)} tokens and {len(types)} types of tokens.")

    def named(key: str) -> str | None:
        token_id = tokenizer_fields.get(f"{key}_token_id")
        return tokens[int(token_id)] if token_id is not None and 0 <= int(token_id) < len(tokens) else None

    ends = [token for token in (named("eos"), named("eot"), named("eom")) if token is not None]
    ends += [tokens[token_id] for token_id in end_token_ids]
    if not ends:
        raise ModelFormatError(f"The GGUF file has no {PREFIX + 'eos_token_id'!r}, so its model could not end a text.")
    padding = named("padding")
    # Files often name a token of ordinary text, such as id 0. Padding is never read, so the end token does as well.
    if padding and "token_type" in tokenizer_fields and types[tokens.index(padding)] in (NORMAL, BYTE):
        padding = None
    starts = bool(tokenizer_fields.get("add_bos_token", kind == "llama"))
    starts = starts or bool(tokenizer_fields.get("kerasgen_starts_texts"))
    settings: dict[str, Any] = {
        "start_token": named("bos") if starts else None,
        "pad_token": padding or ends[0],
        "special_tokens": [
            token for token, token_type in zip(tokens, types, strict=True) if token_type in (CONTROL, UNKNOWN)
        ],
    }
    try:
        if kind == "gpt2":
            return _byte_level(tokenizer_fields, tokens, types, ends, settings)
        if kind == "llama":
            return _sentencepiece(tokenizer_fields, tokens, types, ends, settings)
    except TokenArgumentError as cause:
        raise ModelFormatError(f"The GGUF file's vocabulary can't be used: {cause}") from cause
    raise ModelFormatError(
        f"The GGUF file's tokenizer is of the kind {kind!r}. Of {PREFIX}model, 'gpt2' (byte-level BPE) and 'llama' "
        "(SentencePiece's BPE) are read."
    )


def _byte_level(
    fields: Mapping[str, Any], tokens: list[str], types: list[int], ends: list[str], settings: dict[str, Any]
) -> Tokenizer:
    pre, merges = str(fields.get("pre", "default")), [str(merge) for merge in fields.get("merges", [])]
    if pre not in CUTS and pre not in _STEPS:
        raise ModelFormatError(
            f"The GGUF file's tokenizer cuts a text as llama.cpp's pre-tokenizer {pre!r} does, which is not known. "
            f"Known are {', '.join(sorted((*CUTS, *_STEPS)))}."
        )
    ids = {token: n for n, (token, token_type) in enumerate(zip(tokens, types, strict=True)) if token_type != UNUSED}
    added = [
        AddedToken(token, normalized=False)
        for token, token_type in zip(tokens, types, strict=True)
        if token_type == USER_DEFINED
    ]
    if pre in CUTS:
        return ByteLevelBPE(
            ids,
            merges,
            end_token=ends[0],
            end_tokens=ends,
            added_tokens=added,
            usual_special_tokens=False,
            pretokenization=CUTS[pre],
            drops_missing_bytes=True,
            **settings,
        )
    whole = [*settings["special_tokens"], *(token.content for token in added)]
    content = _tokenizer_json(pre, ids, merges, whole, settings["special_tokens"])
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return PretrainedTokenizer(JsonCodec(text, Path("tokenizer.json")), end_tokens=ends, **settings)


def _tokenizer_json(
    pre: str, ids: Mapping[str, int], merges: Sequence[str], whole: Sequence[str], special: Sequence[str]
) -> dict[str, Any]:
    """Return the `tokenizer.json` of a byte-level BPE that cuts texts in several steps."""
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in _STEPS[pre]
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": ids[token], "content": token, **flags, "special": token in special}
            for token in sorted(whole, key=ids.__getitem__)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "ignore_merges": pre in _IGNORE_MERGES,
            "vocab": dict(ids),
            "merges": [merge.split(" ") for merge in merges],
        },
    }


def _sentencepiece(
    fields: Mapping[str, Any], tokens: list[str], types: list[int], ends: list[str], settings: dict[str, Any]
) -> Tokenizer:
    scores = [float(score) for score in fields.get("scores", [0.0] * len(tokens))]
    if len(scores) != len(tokens):
        raise ModelFormatError(f"The GGUF file has {len(tokens)} tokens and {len(scores)} scores of tokens.")
    prefix = bool(fields.get("add_space_prefix", True))
    unknown = types.index(UNKNOWN) if UNKNOWN in types else int(fields.get("unknown_token_id", 0))
    kinds = [UNKNOWN if n == unknown else kind if kind != UNKNOWN else CONTROL for n, kind in enumerate(types)]
    if BYTE in kinds and kinds.count(BYTE) != 256:
        raise ModelFormatError(f"The GGUF file's vocabulary has {kinds.count(BYTE)} pieces for the 256 bytes.")
    # llama.cpp looks for user-defined pieces before it writes a space as "▁".
    pieces = [
        token.replace(" ", SPACE) if kind == USER_DEFINED else token for token, kind in zip(tokens, kinds, strict=True)
    ]
    proto = model_proto(pieces, scores, kinds, unknown_id=unknown, add_dummy_prefix=prefix)
    codec = SentencePieceCodec(proto, Path("tokenizer.model"), prefix_after_special=True)
    return PretrainedTokenizer(codec, end_tokens=ends, **settings)
