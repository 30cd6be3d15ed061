"""Encodes and decodes texts as a SentencePiece model says, by the `sentencepiece` library."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import MissingDependencyError, TokenizerError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.base import Span, cut_at, spans_of_pieces
from kerasgen.tokens.chunks import portions
from kerasgen.tokens.json_codec import SPACE
from kerasgen.tokens.pretokenization import STAND_IN, SURROGATE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of pieces in a model; GGUF's numbers are the same. Source: sentencepiece_model.proto, `SentencePiece.Type`."""

# A second `normalizer_spec` (field 3) that says `add_dummy_prefix` (field 3 of it) is false: of two, the later counts.
_WITHOUT_PREFIX: Final = b"\x1a\x02\x18\x00"


class SentencePieceCodec:
    """A SentencePiece model: pieces of text with "▁" for a space, and perhaps a piece for each byte.

    A lone surrogate, which UTF-8 can't hold, becomes U+FFFD.

    Args:
        proto: the serialized model.
        path: the path of the file, for messages.
        further: ids of further special tokens, by name; they may lie beyond the model's.
        prefix_after_special: whether the space that the model puts before a text comes after a special token too.

    Attributes:
        further: ids of the special tokens beyond the model's, by name.
        names: pieces by id, as the model writes them.
        pieces: the bytes that each id stands for; those of special tokens are their names in UTF-8.
        special: ids of the control pieces, the unknown one and `further`, by name.
        added: none; the model itself finds what it calls user-defined.
        strips_first_space: whether the model puts a space before a text.

    Raises:
        TokenizerError: it is no model.
        MissingDependencyError: the package `sentencepiece` is not installed.
    """

    file_name = "tokenizer.model"
    added: tuple[AddedToken, ...] = ()

    def __init__(
        self,
        proto: bytes,
        path: Path,
        further: Mapping[str, int] | None = None,
        *,
        prefix_after_special: bool = False,
    ) -> None:
        self._proto = bytes(proto)
        self._path = path
        self.prefix_after_special = prefix_after_special
        self._processor = processor_of(self._proto, path)
        self._inner: Any = None  # without a space before the text
        count = self._processor.vocab_size()
        self.names = {n: str(self._processor.id_to_piece(n)) for n in range(count)}
        special = [n for n in range(count) if self._processor.is_control(n) or self._processor.is_unknown(n)]
        self.special = {self.names[n]: n for n in special} | dict(further or {})
        self.further = {token: token_id for token, token_id in self.special.items() if token_id >= count}
        self.names |= {token_id: token for token, token_id in self.further.items()}
        self.pieces = {n: self._bytes_of(n) for n in range(count)}
        self.pieces |= {token_id: token.encode() for token, token_id in self.special.items()}
        # The model's flag is not in the library's interface; what it does to a text shows it.
        first = self._processor.encode("a", out_type=str)[:1]
        self.strips_first_space = bool(first) and first[0].startswith(SPACE)

    def encode_batch(self, texts: Sequence[str], allowed: frozenset[str] = frozenset()) -> list[list[int]]:
        """Return the ids of each text; the names of special tokens in `allowed` become those, others stay text."""
        clean = [SURROGATE.sub(STAND_IN, text) for text in texts]
        if allowed:
            return [self._with_special(text, allowed) for text in clean]
        return [list(ids) for portion in portions(clean) for ids in self._processor.encode(portion, out_type=int)]

    def encode_with_spans(self, text: str, allowed: frozenset[str] = frozenset()) -> tuple[list[int], list[Span]]:
        """Return the ids of a text, and for each the characters that it writes or writes a part of."""
        if allowed:
            return spans_of_pieces(
                text,
                allowed,
                self.special,
                lambda piece, place: self._spans(piece, self._behind_special() if place else self._processor),
            )
        return self._spans(text, self._processor)

    def _spans(self, text: str, processor: Any) -> tuple[list[int], list[Span]]:
        clean = SURROGATE.sub(STAND_IN, text)
        places = [n for n, character in enumerate(clean) for _ in character.encode()]
        places.append(len(clean))
        ids, spans = [], []
        # A message of pieces (2), each with an id (2), the byte at which it begins (4) and that at which it ends (5),
        # left out where they are 0. Of the bytes of one character, all but the last end where they begin.
        for number, piece in message_fields(processor.encode(clean, out_type="serialized_proto")):
            if number == 2:
                fields = dict(message_fields(piece))
                begin, end = fields.get(4, 0), fields.get(5, 0)
                ids.append(fields.get(2, 0))
                spans.append(Span(places[begin], places[max(end - 1, begin)] + (begin < len(places) - 1)))
        return ids, spans

    def content(self) -> bytes:
        """Return the bytes of the model file."""
        return self._proto

    @property
    def library(self) -> Any:
        """The library's processor of the model."""
        return self._processor

    @property
    def is_plain_bpe(self) -> bool:
        """Whether the model merges pieces by their scores, and leaves a text as it is but for the space before it."""
        kind, changes = 1, b""
        plain = True
        # trainer_spec (2) says model_type (3), 2 for BPE; normalizer_spec (3) a map of characters (2) and whether
        # further blanks go (4), which they do where it doesn't say.
        for number, message in message_fields(self._proto):
            fields = dict(message_fields(message)) if number in (2, 3) else {}
            if number == 2:
                kind = fields.get(3, kind)
            elif number == 3:
                changes, plain = fields.get(2, changes), not fields.get(4, 1)
        return kind == 2 and not changes and plain

    def kinds(self) -> dict[int, int]:
        """Return the type of each piece, such as `BYTE`, by id."""
        types = [
            dict(message_fields(message)).get(3, NORMAL)
            for number, message in message_fields(self._proto)
            if number == 1
        ]
        return dict(enumerate(types))

    def scores(self, count: int) -> list[float]:
        """Return the scores of the first pieces."""
        return [float(self._processor.get_score(n)) for n in range(count)]

    def _behind_special(self) -> Any:
        """Return the library's processor for what stands behind a special token."""
        if self._inner is None:
            self._inner = self._processor
            if not self.prefix_after_special:
                self._inner = processor_of(self._proto + _WITHOUT_PREFIX, self._path)
        return self._inner

    def _with_special(self, text: str, allowed: frozenset[str]) -> list[int]:
        inner = self._behind_special()
        ids: list[int] = []
        for n, part in enumerate(cut_at(allowed).split(text)):
            if n % 2:
                ids.append(self.special[part])
            elif part:
                ids += (inner if n else self._processor).encode(part, out_type=int)
        return ids

    def _bytes_of(self, token_id: int) -> bytes:
        piece = self.names[token_id]
        if self._processor.is_byte(token_id):
            return bytes([int(piece[1:-1], 16)])  # "<0x0A>"
        return piece.replace(SPACE, " ").encode()


def model_proto(
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    *,
    unknown_id: int,
    add_dummy_prefix: bool,
) -> bytes:
    """Return the model of BPE pieces that are known from elsewhere, such as a GGUF file; it normalizes nothing.

    Args:
        pieces: by id, "▁" for a space.
        scores: the score of each piece; of two merges, the one whose piece has the higher score comes first.
        types: the type of each piece, as in SentencePiece.
        unknown_id: the id of the piece that stands for what can't be written.
        add_dummy_prefix: whether a space is put before a text.

    Source: sentencepiece_model.proto, for the numbers of the fields.
    """
    written = bytearray()
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        written += piece_field(piece, score, kind)
    byte_fallback = BYTE in types
    # trainer_spec: model_type (3) is BPE (2), byte_fallback (35), unk_id (40), bos_id (41) and eos_id (42) are none.
    trainer = b"\x18\x02" + _field(35, int(byte_fallback)) + _field(40, unknown_id)
    trainer += _field(41, 2**64 - 1) + _field(42, 2**64 - 1) + _field(43, 2**64 - 1)
    # normalizer_spec: name (1), add_dummy_prefix (3), remove_extra_whitespaces (4), escape_whitespaces (5).
    normalizer = b"\x0a\x08identity" + _field(3, int(add_dummy_prefix)) + _field(4, 0) + _field(5, 1)
    written += b"\x12" + varint(len(trainer)) + trainer
    written += b"\x1a" + varint(len(normalizer)) + normalizer
    return bytes(written)


def piece_field(piece: str, score: float, kind: int) -> bytes:
    """Return the field of a model that holds a piece."""
    text = piece.encode()
    entry = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
    return b"\x0a" + varint(len(entry)) + entry


def message_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a protocol-buffers message: number, and a whole number or bytes."""
    for number, value, _ in _cut(message):
        yield number, value


def without_fields(message: bytes, numbers: Collection[int]) -> bytes:
    """Return a protocol-buffers message without the fields of these numbers."""
    return b"".join(written for number, _, written in _cut(message) if number not in numbers)


def _cut(message: bytes) -> Iterator[tuple[int, Any, bytes]]:
    """Yield each field's number, value and bytes."""
    place = 0

    def whole() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        begin = place
        key = whole()
        if key & 7 == 0:
            value = whole()
            yield key >> 3, value, message[begin:place]
            continue
        size = whole() if key & 7 == 2 else 4 if key & 7 == 5 else 8
        place += size
        yield key >> 3, message[place - size : place], message[begin:place]


def _field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    """Return a whole number as a protocol-buffers message holds it, seven bits a byte."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def processor_of(proto: bytes, path: Path) -> Any:
    """Return the library's processor of a serialized model.

    Raises:
        TokenizerError: it is no model.
        MissingDependencyError: the package `sentencepiece` is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as cause:
        raise MissingDependencyError(
            f"{path} is a SentencePiece model, and the package `sentencepiece` is not installed. Run "
            "`pip install sentencepiece`.",
            package="sentencepiece",
        ) from cause
    try:
        return SentencePieceProcessor(model_proto=proto)
    except Exception as cause:  # the library raises RuntimeError, and others for an empty file
        raise TokenizerError(f"{path} can't be read as a SentencePiece model: {cause}.", path=path) from cause
