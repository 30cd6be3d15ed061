"""Changes the pieces of a SentencePiece model, of the kinds BPE and Unigram.

Source: sentencepiece_model.proto, for the numbers of the fields.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.json_vocabulary import likelihood
from kerasgen.tokens.sentencepiece_codec import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    SentencePieceCodec,
    message_fields,
    piece_field,
    processor_of,
    varint,
    without_fields,
)

_PIECES, _TRAINER, _SELF_TEST = 1, 2, 4
_MODEL_TYPE, _VOCABULARY_SIZE = 3, 4
_SPECIAL_IDS: Final = (40, 41, 42, 43)
"""Of the unknown piece, the start, the end and the padding; -1 for none."""
_NONE: Final = 2**64 - 1  # -1
_UNIGRAM, _BPE = 1, 2
_KINDS: Final = {3: "word", 4: "char"}
# A normalizer_spec that counts beside the first: no map of characters (2), no space before a text (3), no blanks taken
# away (4).
_PLAIN: Final = b"\x1a\x06\x12\x00\x18\x00\x20\x00"


class SentencePieceVocabulary:
    """The pieces of a SentencePiece model and their scores.

    In the codecs that come of it, special tokens that lay beyond the model are control pieces of it.

    Args:
        codec: of the model.

    Attributes:
        whole: ids of pieces that are never merged: special ones, bytes', user-defined ones.

    Raises:
        TokenArgumentError: it is of another kind.
    """

    def __init__(self, codec: SentencePieceCodec) -> None:
        self.codec = codec
        self._fields = list(message_fields(codec.content()))
        entries = [dict(message_fields(message)) for number, message in self._fields if number == _PIECES]
        count = len(entries)
        self._types = codec.kinds() | dict.fromkeys(codec.further.values(), CONTROL)
        self._scores = dict(enumerate(codec.scores(count))) | dict.fromkeys(codec.further.values(), 0.0)
        self._trainer = next((dict(message_fields(one)) for number, one in self._fields if number == _TRAINER), {})
        kind = self._trainer.get(_MODEL_TYPE, _UNIGRAM)
        if kind not in (_UNIGRAM, _BPE):
            raise TokenArgumentError(
                f"The vocabulary of a SentencePiece model of the kind {_KINDS.get(kind, kind)!r} can't be changed; BPE "
                "and Unigram can. Use vocabulary='keep'."
            )
        self._is_unigram = kind == _UNIGRAM
        self._ids = {name: token_id for token_id, name in codec.names.items()}
        self._usual = [n for n, piece_type in self._types.items() if piece_type == NORMAL]
        self._has_bytes = BYTE in self._types.values()
        self._bytes = {codec.pieces[n]: n for n, piece_type in self._types.items() if piece_type == BYTE}
        self._unknown = next((n for n, piece_type in self._types.items() if piece_type == UNKNOWN), None)
        self.whole = {n for n, piece_type in self._types.items() if piece_type not in (NORMAL, UNUSED)}
        self._plain: Any = None

    def required(self, used: Collection[int]) -> set[int]:
        """Return the ids that must stay, and of a Unigram those of the least and the greatest score.

        By these two the library reckons the scores of the unknown piece and of user-defined ones.
        """
        unused = {n for n, piece_type in self._types.items() if piece_type == UNUSED}
        kept = self.whole | set(used) | unused
        if not self._has_bytes:
            kept |= {n for n in self._usual if len(self.codec.names[n]) == 1}
        if self._is_unigram:
            characters = {character for token_id in used for character in self.codec.names[token_id]}
            kept |= {self._ids[character] for character in characters if character in self._ids}
            if self._usual:
                kept |= {min(self._usual, key=self._scores.__getitem__), max(self._usual, key=self._scores.__getitem__)}
            return kept
        for token_id in (set(used) - self.whole) | unused:
            kept.update(self._merged_from(self.codec.names[token_id]))
        return kept

    def reduced(self, ids: Sequence[int]) -> SentencePieceCodec:
        """Return the codec of these ids alone, numbered in this order."""
        return self._of(ids, [])

    def normalized(self, text: str) -> str:
        """Return what the model makes of a text before it looks for pieces."""
        return str(self.codec.library.normalize(text))

    def spelling(self, character: str) -> tuple[int, ...]:
        """Return the ids of a character that shall be one token; see `EditableVocabulary`."""
        if character in self._ids:
            return ()
        if self._has_bytes:
            found = tuple(self._bytes[bytes([byte])] for byte in character.encode())
            return found if len(found) > 1 else ()
        return () if self._unknown is None else (self._unknown,)

    def pair(self, left: int, right: int) -> bool:
        """Return whether these two, side by side, could be one piece."""
        if self._plain is None:
            self._plain = processor_of(self.codec.content() + _PLAIN, Path(self.codec.file_name))
        name = self.codec.names[left] + self.codec.names[right]
        return name not in self._ids and self._plain.encode(name, out_type=int) == [left, right]

    def with_characters(
        self, counts: Mapping[str, int], total: int
    ) -> tuple[SentencePieceCodec, list[tuple[int, ...]]]:
        """Return the codec that has these characters too."""
        least, most = self._range()
        new = [
            (name, min(max(math.log(count / total), least), most) if self._is_unigram else least - 1 - n)
            for n, (name, count) in enumerate(counts.items())
        ]
        return self._with(new, [self.spelling(character) for character in counts])

    def with_pairs(
        self, pairs: Sequence[tuple[int, int, int]], total: int
    ) -> tuple[SentencePieceCodec, list[tuple[int, ...]]]:
        """Return the codec that has these pairs as pieces too; in BPE they are merged after everything else."""
        least, most = self._range()
        new = []
        for n, (left, right, count) in enumerate(pairs):
            score = least - 1 - n
            if self._is_unigram:
                score = likelihood(self._scores[left], self._scores[right], count / total, least, most)
            new.append((self.codec.names[left] + self.codec.names[right], score))
        return self._with(new, [(left, right) for left, right, _ in pairs])

    def _merged_from(self, name: str) -> set[int]:
        """Return the ids of the pieces that a piece of BPE is merged from; of two, the higher score comes first."""
        parts, found = list(name), {*name}
        while len(parts) > 1:
            known = [
                (-self._scores[self._ids[left + right]], at)
                for at, (left, right) in enumerate(pairwise(parts))
                if self._types.get(self._ids.get(left + right, -1)) in (NORMAL, UNUSED)
            ]
            if not known:
                break
            _, at = min(known)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            found.add(parts[at])
        return {self._ids[part] for part in found if part in self._ids}

    def _range(self) -> tuple[float, float]:
        scores = [self._scores[n] for n in self._usual]
        return min(scores, default=0.0), max(scores, default=0.0)

    def _with(
        self, new: Sequence[tuple[str, float]], sources: Sequence[tuple[int, ...]]
    ) -> tuple[SentencePieceCodec, list[tuple[int, ...]]]:
        order = sorted(self.codec.names)
        return self._of(order, new), [*((n,) for n in order), *sources]

    def _of(self, ids: Sequence[int], new: Sequence[tuple[str, float]]) -> SentencePieceCodec:
        written = bytearray()
        for token_id in ids:
            written += piece_field(self.codec.names[token_id], self._scores[token_id], self._types[token_id])
        for name, score in new:
            written += piece_field(name, score, NORMAL)
        places = {token_id: n for n, token_id in enumerate(ids)}
        for number, message in self._fields:
            if number in (_PIECES, _SELF_TEST):  # its expected ids are the old ones'
                continue
            if number == _TRAINER:
                message = self._renumbered(message, places, len(ids) + len(new))
            written += varint(number << 3 | 2) + varint(len(message)) + message
        return SentencePieceCodec(
            bytes(written), Path(self.codec.file_name), prefix_after_special=self.codec.prefix_after_special
        )

    def _renumbered(self, trainer: bytes, places: Mapping[int, int], count: int) -> bytes:
        """Return the trainer's settings, which say what the special pieces' ids and the vocabulary's size are."""
        usual = dict(zip(_SPECIAL_IDS, (0, 1, 2, _NONE), strict=True))
        changed = without_fields(trainer, (_VOCABULARY_SIZE, *_SPECIAL_IDS))
        changed += varint(_VOCABULARY_SIZE << 3) + varint(count)
        for number, value in usual.items():
            place = self._trainer.get(number, value)
            changed += varint(number << 3) + varint(places.get(place, _NONE))
        return changed
