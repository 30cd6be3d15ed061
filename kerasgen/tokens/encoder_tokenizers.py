"""Makes a `tokenizer.json` of the vocabularies of encoders: WordPiece, SentencePiece's Unigram, byte-level BPE.

What a vocabulary's file does not say, how a text is normalized and cut before, is as transformers' classes of these
families have it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from kerasgen.errors import TokenizerError
from kerasgen.tokens.json_codec import SPACE
from kerasgen.tokens.sentencepiece_codec import message_fields, processor_of

UnigramKind: TypeAlias = Literal["albert", "xlm-roberta", "deberta-v2"]
_UNIGRAM, _WORDPIECE_LONGEST = 1, 100


class Special(NamedTuple):
    """The names of an encoder's special tokens."""

    start: str
    end: str
    pad: str
    mask: str
    unknown: str


def word_piece(
    vocabulary: Sequence[str],
    special: Special,
    *,
    lowercase: bool,
    strip_accents: bool | None = None,
    splits_chinese: bool = True,
) -> str:
    """Return the `tokenizer.json` of a WordPiece vocabulary, as BERT's.

    Args:
        vocabulary: the tokens in the order of their ids.
        special: the names of the special tokens.
        lowercase: whether texts are lower-cased.
        strip_accents: whether accents are taken off; None for where texts are lower-cased.
        splits_chinese: whether each Chinese character is a word.

    Raises:
        TokenizerError: a special token is not in the vocabulary.
    """
    ids = {token: token_id for token_id, token in enumerate(vocabulary)}
    model = {
        "type": "WordPiece",
        "unk_token": special.unknown,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": _WORDPIECE_LONGEST,
        "vocab": ids,
    }
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": splits_chinese,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    return _content(model, normalizer, {"type": "BertPreTokenizer"}, decoder, special, ids)


def byte_pairs(vocabulary: dict[str, int], merges: Sequence[str], special: Special) -> str:
    """Return the `tokenizer.json` of a byte-level BPE vocabulary, as RoBERTa's.

    Args:
        vocabulary: ids by token, in GPT-2's printable characters.
        merges: two tokens each, a space between them.
        special: the names of the special tokens.

    Raises:
        TokenizerError: a special token is not in the vocabulary.
    """
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocabulary,
        "merges": [merge for merge in merges if merge and not merge.startswith("#version")],
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _content(model, None, byte_level, byte_level, special, vocabulary)


def unigram(
    proto: bytes,
    path: Path,
    kind: UnigramKind,
    special: Special,
    *,
    lowercase: bool | None = None,
    keeps_accents: bool = False,
) -> str:
    """Return the `tokenizer.json` of a SentencePiece model of the kind Unigram.

    Args:
        proto: the serialized model.
        path: of its file, for messages.
        kind: whose normalization and ids it has: XLM-R has a padding token that the model lacks, and its special ones
            in another order.
        special: the names of the special tokens.
        lowercase: whether texts are lower-cased; None for what the family does (ALBERT does).
        keeps_accents: whether ALBERT keeps accents.

    Raises:
        TokenizerError: it is no such model, or a special token is not in its vocabulary.
        MissingDependencyError: the package `sentencepiece` is not installed.
    """
    processor = processor_of(proto, path)
    model_type, charsmap = _UNIGRAM, b""
    for number, message in message_fields(proto):
        fields = dict(message_fields(message)) if number in (2, 3) else {}
        if number == 2:
            model_type = fields.get(3, model_type)
        elif number == 3:
            charsmap = fields.get(2, charsmap)
    if model_type != _UNIGRAM:
        raise TokenizerError(f"{path} is a SentencePiece model of another kind than Unigram.", path=path)
    pieces = [(str(processor.id_to_piece(n)), float(processor.get_score(n))) for n in range(processor.vocab_size())]
    unknown = int(processor.unk_id())
    if kind == "xlm-roberta":
        first = [(special.start, 0.0), (special.pad, 0.0), (special.end, 0.0), (special.unknown, 0.0)]
        pieces, unknown = [*first, *pieces[3:]], 3
    names = {name for name, _ in pieces}
    pieces += [(name, 0.0) for name in (special.mask,) if name not in names]
    model = {
        "type": "Unigram",
        "unk_id": unknown,
        "vocab": [list(piece) for piece in pieces],
        "byte_fallback": False,
    }
    ids = {name: n for n, (name, _) in reversed(list(enumerate(pieces)))}
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    cut: Any = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    steps: list[Any]
    mapped = [] if not charsmap else [_precompiled(charsmap)]
    if kind == "albert":
        quotes = [{"type": "Replace", "pattern": {"String": old}, "content": '"'} for old in ("``", "''")]
        bare = [] if keeps_accents else [{"type": "NFKD"}, {"type": "StripAccents"}]
        steps = [*quotes, *bare, *([{"type": "Lowercase"}] if lowercase in (None, True) else []), *mapped]
    elif kind == "deberta-v2":
        blanks = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
        strip = {"type": "Strip", "strip_left": False, "strip_right": True}
        steps = [*([{"type": "Lowercase"}] if lowercase else []), blanks, {"type": "NFC"}, strip]
        cut = {"type": "Sequence", "pretokenizers": [metaspace]}
    else:
        steps = mapped
    normalizer = {"type": "Sequence", "normalizers": steps} if steps else None
    return _content(model, normalizer, cut, metaspace, special, ids)


def _precompiled(charsmap: bytes) -> dict[str, Any]:
    import base64

    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}


def _content(
    model: Any, normalizer: Any, pre_tokenizer: Any, decoder: Any, special: Special, ids: dict[str, int]
) -> str:
    missing = [name for name in special if name not in ids]
    if missing:
        raise TokenizerError(f"The vocabulary lacks the special token {missing[0]!r}, which its family has.")
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    added = [
        {"id": ids[name], "content": name, "lstrip": name == special.mask, **flags}
        for name in sorted(dict.fromkeys(special), key=ids.__getitem__)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": template(special.start, special.end, ids),
            "decoder": decoder,
            "model": model,
        },
        ensure_ascii=False,
        allow_nan=False,
    )


def template(start: str, end: str, ids: dict[str, int]) -> dict[str, Any]:
    """Return the post-processor that puts a start and an end token around a text."""

    def token(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    text = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    named: Final = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (start, end)}
    return {
        "type": "TemplateProcessing",
        "single": [token(start), text, token(end)],
        "pair": [token(start), text, token(end), second, token(end)],
        "special_tokens": named,
    }
