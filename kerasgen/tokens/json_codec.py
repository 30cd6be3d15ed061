"""Encodes and decodes texts as a `tokenizer.json` of transformers says, by the `tokenizers` library."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen.errors import TokenizerError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.base import Span
from kerasgen.tokens.bpe_files import parse_json
from kerasgen.tokens.chunks import portions
from kerasgen.tokens.fork_safety import mind_forks
from kerasgen.tokens.pretokenization import STAND_IN, SURROGATE, token_bytes
from kerasgen.tokens.tokenizer_json import added_token

if TYPE_CHECKING:
    import tokenizers

SPACE: Final = "\u2581"
"""What SentencePiece, and those that follow it, write a space as."""

_DECODERS: Final = ("ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece")


class JsonCodec:
    """The library's tokenizer, without what it adds before and after a text.

    A lone surrogate, which the library's strings can't hold, becomes U+FFFD.

    Args:
        text: the text of a `tokenizer.json`.
        path: the path of the file, for messages.

    Attributes:
        names: tokens by id, as the file writes them.
        pieces: the bytes that each id stands for; a special token's are its name in UTF-8.
        special: ids of the tokens that the file calls special, by name.
        added: the added tokens that are not special.
        strips_first_space: whether the decoder takes away a space at the beginning of a text.
        model_kind: `"BPE"`, `"Unigram"` or `"WordPiece"`.
        is_byte_level: whether tokens are bytes, written as GPT-2's printable characters.

    Raises:
        TokenizerError: the text is no `tokenizer.json`, or its tokens stand for no bytes that are known.
    """

    file_name = "tokenizer.json"

    def __init__(self, text: str, path: Path) -> None:
        content = parse_json(text, path)
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise TokenizerError(f"{path} is no tokenizer.json of transformers: it has no `model`.", path=path)
        self._text = text
        self._path = path
        self._lock = threading.Lock()
        steps = _decoder_steps(content, path)
        self._rust = _library(content, path)
        self.strips_first_space = any(_strips(step) for step in steps)
        entries = content.get("added_tokens") or []
        self.special = {str(entry["content"]): int(entry["id"]) for entry in entries if entry.get("special")}
        ordinary = {entry["content"]: added_token(entry, path) for entry in entries if not entry.get("special")}
        self.added: tuple[AddedToken, ...] = tuple(ordinary.values())
        self.model_kind = str(content["model"].get("type", "BPE"))
        self.is_byte_level = any(step["type"] == "ByteLevel" for step in steps)
        whole = {*self.special, *ordinary} if self.is_byte_level else {*self.special}
        self.names: dict[int, str] = {
            token_id: token for token, token_id in self._rust.get_vocab(with_added_tokens=True).items()
        }
        self.pieces = {
            token_id: token.encode() if token in whole else _bytes(token, steps)
            for token_id, token in self.names.items()
        }
        self._variants: dict[frozenset[str], tokenizers.Tokenizer] = {}

    def encode_batch(self, texts: Sequence[str], allowed: frozenset[str] = frozenset()) -> list[list[int]]:
        """Return the ids of each text; the names of special tokens in `allowed` become those, others stay text."""
        mind_forks()
        rust = self._variant(allowed)
        try:
            if len(texts) == 1:
                return [list(rust.encode(texts[0], add_special_tokens=False).ids)]
            batches = (rust.encode_batch_fast(portion, add_special_tokens=False) for portion in portions(texts))
            return [list(encoding.ids) for batch in batches for encoding in batch]
        except (TypeError, UnicodeError):  # a lone surrogate is in one of them
            clean = [SURROGATE.sub(STAND_IN, text) for text in texts]
            if clean == list(texts):
                raise
            return self.encode_batch(clean, allowed)

    def encode_with_spans(self, text: str, allowed: frozenset[str] = frozenset()) -> tuple[list[int], list[Span]]:
        """Return the ids of a text, and for each the characters that it writes or writes a part of."""
        encoding = self._variant(allowed).encode(SURROGATE.sub(STAND_IN, text), add_special_tokens=False)
        return list(encoding.ids), [Span(*offset) for offset in encoding.offsets]

    def content(self) -> bytes:
        """Return the bytes of the `tokenizer.json`."""
        return self._text.encode()

    @property
    def library(self) -> tokenizers.Tokenizer:
        """The library's tokenizer."""
        return self._rust

    def _variant(self, allowed: frozenset[str]) -> tokenizers.Tokenizer:
        """Return the library's tokenizer that finds the allowed special tokens in a text."""
        if not allowed:
            return self._rust
        with self._lock:
            if allowed not in self._variants:
                content = json.loads(self._text)
                for entry in content.get("added_tokens") or []:
                    entry["special"] = bool(entry.get("special")) and entry["content"] not in allowed
                self._variants[allowed] = _library(content, self._path)
            return self._variants[allowed]


def _library(content: Mapping[str, Any], path: Path) -> tokenizers.Tokenizer:
    """Return the library's tokenizer of a file's content; it takes a special token's name for text."""
    from tokenizers import Tokenizer

    bare = {**content, "post_processor": None, "truncation": None, "padding": None}
    try:
        rust = Tokenizer.from_str(json.dumps(bare, ensure_ascii=False, allow_nan=False))
    except Exception as cause:  # the library raises nothing narrower
        raise TokenizerError(
            f"{path} can't be read by the package `tokenizers`: {cause}. Install a newer one "
            "(`pip install -U tokenizers`), or save the tokenizer again.",
            path=path,
        ) from cause
    rust.encode_special_tokens = True
    return rust


def _decoder_steps(content: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Return the steps of a file's decoder, each of a known kind."""
    decoder = content.get("decoder") or {}
    steps = list(decoder.get("decoders") or []) if decoder.get("type") == "Sequence" else [decoder]
    kinds = [str(step.get("type")) for step in steps if isinstance(step, dict)]
    unknown = [kind for kind in kinds if kind not in _DECODERS]
    if content["model"].get("dropout"):
        raise TokenizerError(
            f"{path} has dropout={content['model']['dropout']!r} in its model, so a text has other ids each time. "
            "Set it to null.",
            path=path,
        )
    kind = content["model"].get("type", "BPE")
    words = "WordPiece"
    if unknown or kind not in ("BPE", "Unigram", words) or (kind == words) != (words in kinds):
        raise TokenizerError(
            f"{path} describes a tokenizer whose tokens can't be told as bytes: its model is {kind!r} and its decoder "
            f"{', '.join(kinds)}. BPE, Unigram and WordPiece are read, with decoders of {', '.join(_DECODERS)}.",
            path=path,
        )
    return steps


def _strips(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Metaspace":
        return bool(step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True))
    if step["type"] == "WordPiece":
        return True
    return bool(step["type"] == "Strip" and step.get("content") == " " and step.get("start", 0) > 0)


def is_chinese(token: str) -> bool:
    """Return whether a token is a character that stands without a space beside others: Chinese, or its punctuation.

    Source: `handle_chinese_chars` of the `tokenizers` library, which cuts the former apart from their neighbours.
    """
    ranges = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0xF900, 0xFAFF))
    return len(token) == 1 and any(
        first <= ord(token) <= last for first, last in (*ranges, (0x2F800, 0x2FA1F), (0x3000, 0x303F), (0xFF00, 0xFF65))
    )


def _bytes(token: str, steps: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the bytes that a decoder of these steps makes of a token."""
    for step in steps:
        if step["type"] == "ByteLevel":
            return token_bytes(token, special=False)
        if step["type"] == "Metaspace":
            token = token.replace(step.get("replacement", SPACE), " ")
        elif step["type"] == "Replace" and isinstance(step["pattern"].get("String"), str):
            token = token.replace(step["pattern"]["String"], step["content"])
        elif step["type"] == "WordPiece":
            prefix = str(step.get("prefix", "##"))
            if token.startswith(prefix) and token != prefix:
                token = token.removeprefix(prefix)
            elif not is_chinese(token):  # which BERT's tokenizers cut apart without a space in the text
                token = f" {token}"
        elif step["type"] == "ByteFallback" and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
    return token.encode()
