"""Loss weights of documents' tokens, stored by part rather than by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from kerasgen.chat.template import ChatTemplate
from kerasgen.errors import ChatTemplateError
from kerasgen.tokens.base import Span, Tokenizer

if TYPE_CHECKING:
    from kerasgen.corpora.base import Document, Part

_SYSTEM, _USER = "system", "user"


@dataclass(frozen=True, eq=False)
class DocumentParts:
    """The parts of one document, in tokens.

    Args:
        ends: int64 `(parts,)`; where each ends, counted from the document's first token.
        weights: float32 `(parts,)`; how much a token of each counts.
        turns: uint8 `(parts,)`; 1 where a turn of a conversation begins.
        head: tokens at the beginning that stay where the document is cut: its start token and its system turn.
        characters: Unicode code points of the whole text.
    """

    ends: NDArray[np.int64]
    weights: NDArray[np.float32]
    turns: NDArray[np.uint8]
    head: int
    characters: int

    @classmethod
    def whole(cls, length: int, characters: int) -> DocumentParts:
        """Return the one part of a document of so many tokens and characters that is learned as a whole."""
        return cls(np.array([length], np.int64), np.ones(1, np.float32), np.zeros(1, np.uint8), 0, characters)

    def last(self, count: int) -> DocumentParts:
        """Return the parts of the document's last tokens, as many as `count`."""
        left_out = int(self.ends[-1]) - count
        kept = self.ends > left_out
        return DocumentParts(self.ends[kept] - left_out, self.weights[kept], self.turns[kept], 0, self.characters)


@dataclass(frozen=True, eq=False)
class EncodedParts:
    """The parts of many documents, one after another.

    Args:
        offsets: int64 `(documents + 1,)`; document i has the parts `offsets[i]` to `offsets[i + 1]`, at least one.
        ends: int64 `(parts,)`; where each ends in the flat array of tokens. It begins where the one before ends.
        weights: float32 `(parts,)`, as in `DocumentParts`, as is the next.
        turns: uint8 `(parts,)`.
        heads: int64 `(documents,)`; `DocumentParts.head` of each.
        characters: int64 `(documents,)`; Unicode code points of each whole text.
    """

    offsets: NDArray[np.int64]
    ends: NDArray[np.int64]
    weights: NDArray[np.float32]
    turns: NDArray[np.uint8]
    heads: NDArray[np.int64]
    characters: NDArray[np.int64]

    @classmethod
    def joined(cls, documents: Sequence[DocumentParts]) -> EncodedParts:
        """Return the parts of documents whose tokens stand one after another."""
        begin, ends = 0, []
        for document in documents:
            ends.append(document.ends + begin)
            begin = int(ends[-1][-1])
        return cls(
            offsets=np.cumsum([0, *(len(document.ends) for document in documents)], dtype=np.int64),
            ends=_concatenated(ends, np.int64),
            weights=_concatenated([document.weights for document in documents], np.float32),
            turns=_concatenated([document.turns for document in documents], np.uint8),
            heads=np.asarray([document.head for document in documents], np.int64),
            characters=np.asarray([document.characters for document in documents], np.int64),
        )

    def of_document(self, index: int) -> DocumentParts:
        """Return the parts of one document."""
        first, stop = self.offsets[index : index + 2]
        begin = int(self.ends[first - 1]) if first else 0
        inside = slice(int(first), int(stop))
        return DocumentParts(
            ends=np.asarray(self.ends[inside]) - begin,
            weights=np.asarray(self.weights[inside]),
            turns=np.asarray(self.turns[inside]),
            head=int(self.heads[index]),
            characters=int(self.characters[index]),
        )

    def weights_of(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the loss weight of the token at each index of the flat array, float32 in the shape of the indices."""
        return np.asarray(self.weights)[np.searchsorted(self.ends, places, side="right")]

    def sums(self, begins: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the loss weights of the tokens of each range, float64."""
        return np.asarray(self._before(self._sums, stops) - self._before(self._sums, begins))

    def learned(self, begins: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of tokens of each range that are learned, int64."""
        counted = self._before(self._counts, stops) - self._before(self._counts, begins)
        return np.asarray(counted, np.int64)

    @cached_property
    def _sums(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._cumulated(np.asarray(self.weights, np.float64))

    @cached_property
    def _counts(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._cumulated((np.asarray(self.weights) > 0).astype(np.int64))

    def _cumulated(self, per_token: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a figure of a token of each part, and its sum over all tokens before each part."""
        lengths = np.diff(self.ends, prepend=0)
        return per_token, np.concatenate([[0], np.cumsum(per_token * lengths)])

    def _before(self, figure: tuple[NDArray[Any], NDArray[Any]], places: NDArray[np.int64]) -> NDArray[Any]:
        per_token, before = figure
        ends = np.asarray(self.ends)
        part = np.minimum(np.searchsorted(ends, places, side="right"), len(ends) - 1)
        begins = np.concatenate([[0], ends[:-1]])
        return np.asarray(before[part] + per_token[part] * (places - begins[part]))

    def digest_into(self, digest: Any) -> None:
        """Take all of it into a digest of `hashlib`."""
        for name in COLUMNS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)


COLUMNS: Final = {
    **{"offsets": "<i8", "ends": "<i8", "weights": "<f4", "turns": "<u1", "heads": "<i8", "characters": "<i8"}
}
"""The arrays of `EncodedParts` and what a number in them is, where they are kept in files."""


def parts_of(
    parts: Sequence[Part], spans: Sequence[Span], *, start: int, end: int, characters: int | None = None
) -> DocumentParts:
    """Return a document's parts in tokens.

    Args:
        parts: the document's; it has some.
        spans: of the tokens of its text.
        start: tokens before those, which belong to its first part.
        end: tokens after those, which belong to its last part.
        characters: Unicode code points of its text, where that is not what the parts hold.
    """
    total = start + len(spans) + end
    edges = np.cumsum([len(part.text) for part in parts])
    # A token belongs to the part of the last character that it writes, and one that writes nothing to that behind it.
    last = np.asarray([max(span.end - 1, span.start) for span in spans], np.int64)
    of_token = np.maximum.accumulate(np.searchsorted(edges[:-1], last, side="right")) if spans else last
    ends = start + np.searchsorted(of_token, np.arange(len(parts)), side="right")
    ends[-1] = total
    roles = [part.role for part in parts]
    system = next((n for n, role in enumerate(roles) if role != _SYSTEM), len(roles) - 1)
    return DocumentParts(
        ends=ends.astype(np.int64),
        weights=np.asarray([part.weight for part in parts], np.float32),
        turns=np.asarray([role == _USER for role in roles], np.uint8),
        head=int(ends[system - 1]) if system else start,
        characters=int(edges[-1]) if characters is None else characters,
    )


def encoded(
    document: Document, tokenizer: Tokenizer, chat: ChatTemplate | None = None
) -> tuple[NDArray[np.int32], DocumentParts]:
    """Return a document's ids between start token (if the tokenizer has one) and end token, and its parts.

    A conversation's are those of the text that the chat template writes, in which special tokens' names are those
    tokens. Nothing is put around it, but an end token where its last answer ends with no special token.

    Args:
        document: it has parts.
        tokenizer: the tokenizer whose ids they become.
        chat: writes conversations.

    Raises:
        ChatTemplateError: the document is a conversation, and there is no template or it refuses it.
    """
    if document.conversation is not None:
        return _encoded_conversation(document, tokenizer, chat)
    ids, spans = tokenizer.encode_with_spans(document.text)
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    whole = np.asarray([*start, *ids, tokenizer.end_token_id], np.int32)
    return whole, parts_of(document.parts, spans, start=len(start), end=1)


def _encoded_conversation(
    document: Document, tokenizer: Tokenizer, chat: ChatTemplate | None
) -> tuple[NDArray[np.int32], DocumentParts]:
    assert document.conversation is not None
    if chat is None:
        raise ChatTemplateError(
            f"The document {document.id!r} is a conversation, and the model has no chat template to write it by. Name "
            "one: Pipeline(chat_template='chatml'), or 'alpaca', which needs no special tokens (as for a masked model)."
        )
    try:
        parts = chat.parts(document.conversation)
    except ChatTemplateError as cause:
        raise ChatTemplateError(f"The conversation {document.id!r} can't be written. {cause}") from cause
    ids, spans = tokenizer.encode_with_spans("".join(part.text for part in parts), "all")
    last = [part.text for part in parts if part.role == "assistant"][-1]
    end = [] if chat.ends_itself(last) else [tokenizer.end_token_id]
    whole = np.asarray([*ids, *end], np.int32)
    return whole, parts_of(parts, spans, start=0, end=len(end), characters=len(document.text))


def learned_characters(document: Document) -> int:
    """Return how many Unicode code points of a document's text are learned."""
    if not document.parts:
        return len(document.text)
    return sum(len(part.text) for part in document.parts if part.weight > 0)


def _concatenated(arrays: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)
