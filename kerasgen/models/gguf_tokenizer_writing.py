"""Makes a model's tokenizer one that llama.cpp has: byte-level BPE of a named cut, or pieces merged by scores."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import ExportArgumentError, TokenizerError
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.models.transformers_tokenizers import PROBES
from kerasgen.tokens import tokenizer_json
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.bpe_files import pair_of
from kerasgen.tokens.json_codec import SPACE, JsonCodec
from kerasgen.tokens.json_vocabulary import BYTE_TOKENS
from kerasgen.tokens.pretokenization import GPT2, GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, Pretokenization
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.sentencepiece_codec import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceCodec,
    model_proto,
)
from kerasgen.tokens.sentencepiece_vocabulary import SentencePieceVocabulary

# llama.cpp's name of each way to cut a text; those of one regular expression differ in whether it ignores merges.
_PRE: Final[Mapping[Pretokenization, str]] = {
    GPT2: "gpt-2",
    Pretokenization(GPT2_PATTERN, single_digits=True): "smollm",
    Pretokenization(single_digits=True): "smollm",
    Pretokenization(LLAMA3_PATTERN, ignore_merges=True): "llama-bpe",
    Pretokenization(LLAMA3_PATTERN): "dbrx",
    Pretokenization(QWEN2_PATTERN): "qwen2",
    Pretokenization(r" ?[^(\s|[.,!?…。，、।۔،])]+"): "bloom",  # Bloom's file; what `from_gguf` cuts by
    Pretokenization(r" ?[^(\s|.,!?…。，、।۔،)]+"): "bloom",
}
_REPLACE: Final = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_FLAGS: Final = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer as a GGUF file holds it.

    Args:
        tokenizer: gives the ids that llama.cpp gives.
        differences: in which texts those are not the model's, each a sentence; none where they always are.
        normalize: makes a text one that has the same ids in both.
    """

    tokenizer: ByteLevelBPE | PretrainedTokenizer
    differences: tuple[str, ...] = ()
    normalize: Callable[[str], str] = field(default=str)


def pre_tokenizer_name(tokenizer: ByteLevelBPE) -> str | None:
    """Return llama.cpp's name of a tokenizer's pre-tokenization, or None where it has none."""
    return _PRE.get(tokenizer.pretokenization)


def of(tokenizer: Tokenizer) -> GgufTokenizer:
    """Return a model's tokenizer as llama.cpp has it.

    A `tokenizer.json` that brings a text into the form NFC is written without that, which llama.cpp can't do: as every
    GGUF file of a Qwen is. One with BPE of characters becomes pieces with scores, if its merges are in such an order.

    Raises:
        ExportArgumentError: llama.cpp has none of the same ids.
    """
    if isinstance(tokenizer, KerasHubTokenizer):
        tokenizer = tokenizer.as_byte_level() or tokenizer.as_pretrained()
    if isinstance(tokenizer, ByteLevelBPE):
        return GgufTokenizer(_checked(tokenizer))
    if not isinstance(tokenizer, PretrainedTokenizer):
        raise _refused(tokenizer, f"A {type(tokenizer).__name__} is of another kind.")
    codec = tokenizer.codec
    if isinstance(codec, SentencePieceCodec):
        spaced = any(SPACE in codec.names[n] for n, kind in codec.kinds().items() if kind == USER_DEFINED)
        said = f"llama.cpp finds user-defined pieces of blanks, and not where a text itself holds {SPACE!r}"
        return GgufTokenizer(_of_model(tokenizer, codec), (said,) if spaced else ())
    assert isinstance(codec, JsonCodec)
    found = _of_bytes(tokenizer, codec) if codec.is_byte_level else _of_characters(tokenizer, codec)
    texts = [found.normalize(text) for text in PROBES]
    for text, here, there in zip(
        texts, tokenizer.encode_batch(texts), found.tokenizer.encode_batch(texts), strict=True
    ):
        if here != there:
            raise _refused(tokenizer, f"llama.cpp would give other ids of {text!r}.")
    return found


def _checked(tokenizer: ByteLevelBPE) -> ByteLevelBPE:
    if pre_tokenizer_name(tokenizer) is None:
        raise ExportArgumentError(
            f"llama.cpp has no name for how this tokenizer cuts a text. Received: {tokenizer.pretokenization}. The "
            "exporter 'transformers' writes it."
        )
    for token in tokenizer.added_tokens:
        if any(getattr(token, flag) for flag in _FLAGS):
            flags = ", ".join(flag for flag in _FLAGS if getattr(token, flag))
            raise _refused(tokenizer, f"llama.cpp finds the added token {token.content!r} without its {flags}.")
    return tokenizer


def _of_bytes(tokenizer: PretrainedTokenizer, codec: JsonCodec) -> GgufTokenizer:
    """Return the byte-level BPE of a `tokenizer.json`, without its normalizer."""
    content = json.loads(codec.content())
    normalizers, differences = _steps(content.get("normalizer"), "normalizers"), []
    if normalizers and normalizers != [{"type": "NFC"}]:
        raise _refused(tokenizer, f"llama.cpp normalizes no text, and it does ({_kinds(normalizers)}).")
    if normalizers:
        differences.append(
            "llama.cpp does not bring a text into the form NFC, as this tokenizer does: a text in another form, such "
            "as a letter with its accent behind it, has other ids there"
        )
    entries = [{**entry, **dict.fromkeys(_FLAGS, False)} for entry in content.get("added_tokens") or []]
    differences += _flags_of_special(content)
    ordinary = [entry for entry in content.get("added_tokens") or [] if not entry.get("special")]
    for entry in ordinary:
        if any(entry.get(flag) for flag in _FLAGS):
            raise _refused(tokenizer, f"llama.cpp finds the added token {entry['content']!r} without its flags.")
    plain = {**content, "normalizer": None, "post_processor": None, "added_tokens": entries}
    try:
        contents = tokenizer_json.contents(plain, Path(JsonCodec.file_name))
    except TokenizerError as cause:
        raise _refused(tokenizer, str(cause)) from cause
    bpe = ByteLevelBPE(
        contents.vocabulary,
        contents.merges,
        start_token=tokenizer.start_token,
        end_token=tokenizer.end_token,
        pad_token=str(tokenizer.pad_token),
        special_tokens=tuple(tokenizer.special_tokens),
        added_tokens=contents.added_tokens,
        end_tokens=[tokenizer.id_to_token(token_id) for token_id in tokenizer.end_token_ids],
        usual_special_tokens=False,
        pretokenization=contents.pretokenization,
        drops_missing_bytes=True,
    )
    return GgufTokenizer(_checked(bpe), tuple(differences), _nfc if normalizers else str)


def _of_characters(tokenizer: PretrainedTokenizer, codec: JsonCodec) -> GgufTokenizer:
    """Return the pieces of a `tokenizer.json` with BPE of characters, and scores that merge them in the same order.

    Of a piece, its score is the place of its first merge. So the merges must be those that scores can say: all pairs
    that make a piece, and those of one piece together.
    """
    content = json.loads(codec.content())
    model, normalizers = content["model"], _steps(content.get("normalizer"), "normalizers")
    prefix = {"type": "Prepend", "prepend": SPACE}
    has_prefix = normalizers == [prefix, _REPLACE]
    cuts = [step for step in _steps(content.get("pre_tokenizer"), "pretokenizers") if not _is_idle(step)]
    if codec.model_kind != "BPE" or cuts or (normalizers != [_REPLACE] and not has_prefix):
        raise _refused(
            tokenizer,
            f"It is {codec.model_kind} that normalizes ({_kinds(normalizers) or 'nothing'}) and cuts "
            f"({_kinds(cuts) or 'nothing'}) otherwise than SentencePiece's BPE.",
        )
    ids = {name: token_id for token_id, name in codec.names.items()}
    if not model.get("byte_fallback") or not ids.keys() >= BYTE_TOKENS:
        raise _refused(tokenizer, "It has no pieces of bytes.")
    scores = _scores(tokenizer, [pair for pair in map(pair_of, model["merges"]) if pair is not None], ids)
    special = set(tokenizer.special_tokens)
    ordinary = [entry for entry in content.get("added_tokens") or [] if not entry.get("special")]
    for entry in ordinary:
        if any(entry.get(flag) for flag in _FLAGS):
            raise _refused(tokenizer, f"llama.cpp finds the added token {entry['content']!r} without its flags.")
    # One with "▁" is found as it is written; there a user-defined one would stand for blanks.
    whole = {entry["content"] for entry in ordinary if SPACE not in entry["content"]}
    unknown = model.get("unk_token")

    def kind(name: str) -> int:
        if name == unknown:
            return UNKNOWN
        if name in BYTE_TOKENS:
            return BYTE
        return CONTROL if name in special else USER_DEFINED if name in whole else NORMAL

    if unknown not in ids or sorted(codec.names) != list(range(len(ids))):
        raise _refused(tokenizer, "Its ids have holes, or it has no unknown piece.")
    names = [codec.names[n] for n in range(len(ids))]
    least = -float(len(scores))
    proto = model_proto(
        names,
        [scores.get(name, least if kind(name) == NORMAL else 0.0) for name in names],
        [kind(name) for name in names],
        unknown_id=ids[unknown],
        add_dummy_prefix=has_prefix,
    )
    made = SentencePieceCodec(proto, Path(SentencePieceCodec.file_name), prefix_after_special=True)
    return GgufTokenizer(_with_codec(tokenizer, made), tuple(_flags_of_special(content)))


def _scores(
    tokenizer: PretrainedTokenizer, merges: Iterable[tuple[str, str]], ids: Mapping[str, int]
) -> dict[str, float]:
    """Return the scores of merged pieces, the first merged highest."""
    scores: dict[str, float] = {}
    pairs: dict[str, int] = {}
    last = ""
    for left, right in merges:
        piece = left + right
        if piece != last and piece in scores:
            raise _refused(tokenizer, f"Its merges are in an order that no scores of pieces give ({piece!r}).")
        scores.setdefault(piece, -float(len(scores)))
        pairs[piece] = pairs.get(piece, 0) + 1
        last = piece
    for piece, count in pairs.items():
        if count != sum(piece[:at] in ids and piece[at:] in ids for at in range(1, len(piece))):
            raise _refused(tokenizer, f"Not all pairs of pieces that make {piece!r} are merged.")
    return scores


def _of_model(tokenizer: PretrainedTokenizer, codec: SentencePieceCodec) -> PretrainedTokenizer:
    if not codec.is_plain_bpe:
        raise _refused(tokenizer, "Its SentencePiece model is no BPE, or normalizes a text.")
    if not codec.further:
        return tokenizer
    ids = sorted(codec.names)
    if ids != list(range(len(ids))):
        raise _refused(tokenizer, "Ids between its special tokens have no piece.")
    return _with_codec(tokenizer, SentencePieceVocabulary(codec).reduced(ids))


def _with_codec(tokenizer: PretrainedTokenizer, codec: SentencePieceCodec) -> PretrainedTokenizer:
    return PretrainedTokenizer(
        codec,
        end_tokens=[tokenizer.id_to_token(token_id) for token_id in tokenizer.end_token_ids],
        start_token=tokenizer.start_token,
        pad_token=tokenizer.pad_token,
        special_tokens=tuple(tokenizer.special_tokens),
    )


def _flags_of_special(content: Mapping[str, Any]) -> list[str]:
    """Tell of the special tokens that take blanks beside them with them, which llama.cpp leaves."""
    flagged = [
        entry["content"]
        for entry in content.get("added_tokens") or []
        if entry.get("special") and any(entry.get(flag) for flag in _FLAGS)
    ]
    if not flagged:
        return []
    return [
        f"llama.cpp leaves blanks beside special tokens, and this tokenizer takes those of {', '.join(flagged[:3])}"
    ]


def _steps(part: Any, inside: str) -> list[Any]:
    if not part:
        return []
    return list(part.get(inside) or []) if part.get("type") == "Sequence" else [part]


def _is_idle(step: Mapping[str, Any]) -> bool:
    """Whether a step finds nothing to cut after spaces were replaced: Gemma's."""
    return step.get("type") == "Split" and step.get("pattern") == {"String": " "}


def _kinds(steps: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(str(step.get("type")) for step in steps)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _refused(tokenizer: Tokenizer, reason: str) -> ExportArgumentError:
    return ExportArgumentError(
        "The exporter 'gguf' writes tokenizers that llama.cpp has: byte-level BPE of one cut, and pieces merged "
        f"by scores, as SentencePiece's BPE. Received: {tokenizer!r}. {reason} The exporter 'transformers' writes "
        "what a tokenizer.json holds."
    )
