"""Codecs of the tokenizers of KerasHub's families: byte-level BPE and SentencePiece, each from text to ids."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Protocol

from kerasgen.errors import MissingDependencyError, ModelFormatError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.bpe_encoder import encode_surrogates
from kerasgen.tokens.bpe_files import Contents
from kerasgen.tokens.pretokenization import (
    BYTE_OF_CHARACTER,
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    STAND_IN,
    SURROGATE,
    Pretokenization,
    token_bytes,
)

# What the families cut text by before merging; every family but GPT-2's and GPT-NeoX's cuts as Llama 3 does in
# KerasHub. Source: the `pre_tokenizer` of each family's published tokenizer.
_PATTERNS = (("Qwen", QWEN2_PATTERN), ("GPTNeoX", GPT2_PATTERN))

_NORMALIZED = ("Qwen",)  # whose published tokenizers bring a text into the form NFC first

_SPACE = "\u2581"  # SentencePiece writes a space as "▁"


class Codec(Protocol):
    """The part in which kinds of tokenizer differ: the table of bytes, and encoding."""

    pieces: dict[int, bytes]
    strips_first_space: bool

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        ...

    def definition(self) -> bytes:
        """Return all that could change an id."""
        ...


class BytePairs:
    """Byte-level BPE: tokens in printable characters, one for each byte."""

    strips_first_space = False

    def __init__(
        self,
        kind: str,
        vocabulary: dict[str, int],
        merges: Sequence[str],
        special: dict[str, int],
        added: Sequence[AddedToken],
    ) -> None:
        from tokenizers import AddedToken as RustToken
        from tokenizers import Regex
        from tokenizers import Tokenizer as Rust
        from tokenizers.models import BPE
        from tokenizers.normalizers import NFC
        from tokenizers.pre_tokenizers import ByteLevel, Split
        from tokenizers.pre_tokenizers import Sequence as Steps

        self._cut = next((pattern for name, pattern in _PATTERNS if kind.startswith(name)), LLAMA3_PATTERN)
        self._vocabulary = {str(token): int(token_id) for token, token_id in vocabulary.items()}
        pairs = (merge.split(" ") for merge in merges if not merge.startswith("#version:"))
        self._merges = [(left, right) for left, right in pairs]
        try:
            model = BPE(self._vocabulary, self._merges)
        except Exception as cause:
            raise ModelFormatError(f"The {kind}'s merges don't fit its vocabulary: {cause}.") from cause
        # The library would drop a byte that has no token, and say nothing.
        absent = len([character for character in BYTE_OF_CHARACTER if character not in self._vocabulary])
        if absent:
            raise ModelFormatError(f"The {kind}'s vocabulary lacks {absent} of the 256 bytes; not every text has ids.")
        self._splitter = Split(Regex(self._cut), behavior="isolated")
        self._rust = Rust(model)
        self._rust.pre_tokenizer = Steps([self._splitter, ByteLevel(add_prefix_space=False, use_regex=False)])
        self._normalizes = kind.startswith(_NORMALIZED)
        if self._normalizes:
            self._rust.normalizer = NFC()
        self._rust.add_tokens([RustToken(**token.to_json()) for token in added])
        names = {*special, *(token.content for token in added)}
        self.pieces = {
            token_id: token_bytes(token, special=token in names) for token, token_id in self._vocabulary.items()
        }

    def contents(self) -> Contents | None:
        """Return the vocabulary, merges and cut, or None where a text is normalized before."""
        if self._normalizes:
            return None
        cut = Pretokenization(None if self._cut == GPT2_PATTERN else self._cut)
        return Contents(self._vocabulary, self._merges, usual_special_tokens=False, pretokenization=cut)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        if SURROGATE.search(text):
            text = unicodedata.normalize("NFC", text) if self._normalizes else text
            return encode_surrogates(text, self._rust, self._splitter)
        return list(self._rust.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        if any(SURROGATE.search(text) for text in texts):
            return [self.encode(text) for text in texts]
        return [list(e.ids) for e in self._rust.encode_batch_fast(list(texts), add_special_tokens=False)]

    def definition(self) -> bytes:
        """Return all that could change an id."""
        parts = [self._cut, sorted(self._vocabulary.items(), key=lambda item: item[1]), self._merges]
        parts += ["NFC"] if self._normalizes else []
        return json.dumps(parts, allow_nan=False).encode()


class SentencePiece:
    """A SentencePiece model: pieces of text with "▁" for a space, and perhaps a piece for each byte."""

    def __init__(self, proto: bytes, special: dict[str, int]) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as cause:
            raise MissingDependencyError(
                "This preset's tokenizer is a SentencePiece model, and the package `sentencepiece` is not installed. "
                "Run `pip install sentencepiece`.",
                package="sentencepiece",
            ) from cause
        self._proto = proto
        self._processor = SentencePieceProcessor(model_proto=proto)
        self.pieces = {n: self._bytes_of(n) for n in range(self._processor.vocab_size())}
        for token, token_id in special.items():
            self.pieces[token_id] = token.encode()
        # The model's flag is not in the library's interface; what it does to a text shows it.
        first = self._processor.encode("a", out_type=str)[:1]
        self.strips_first_space = bool(first) and first[0].startswith(_SPACE)

    def _bytes_of(self, token_id: int) -> bytes:
        piece: str = self._processor.id_to_piece(token_id)
        if self._processor.is_byte(token_id):
            return bytes([int(piece[1:-1], 16)])  # "<0x0A>"
        if self._processor.is_control(token_id) or self._processor.is_unknown(token_id):
            return piece.encode()
        return piece.replace(_SPACE, " ").encode()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return list(self._processor.encode(SURROGATE.sub(STAND_IN, text), out_type=int))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        clean = [SURROGATE.sub(STAND_IN, text) for text in texts]
        return [list(ids) for ids in self._processor.encode(clean, out_type=int)] if clean else []

    def definition(self) -> bytes:
        """Return all that could change an id."""
        return bytes(self._proto)
