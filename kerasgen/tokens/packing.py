"""Packs documents into rows of one length, with little padding, so that no document sees another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.parts import DocumentParts, EncodedParts

Packing: TypeAlias = Literal["best_fit", "none", "concatenate"]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Documents cut to at most `sequence_length` targets; most are whole.

    A piece of n targets is n + 1 tokens: it begins with the last token of the piece before it, so each target of
    each document is predicted exactly once. Of a document with parts, a piece that is only read is left out.

    Args:
        starts: int64 `(pieces,)`; where the piece's first token stands in the flat array.
        targets: int64 `(pieces,)`; how many targets it has, 1 to `sequence_length`.
        documents: int64 `(pieces,)`; which document it is of.
        heads: int64 `(pieces,)`; how many tokens of it stand before those that are left out.
        gaps: int64 `(pieces,)`; how many tokens are left out behind its head; 0 for a piece without a gap. The token
            behind a gap is never learned.
    """

    starts: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]
    heads: NDArray[np.int64]
    gaps: NDArray[np.int64]

    @classmethod
    def without_gaps(
        cls, starts: NDArray[np.int64], targets: NDArray[np.int64], documents: NDArray[np.int64]
    ) -> Pieces:
        """Return pieces of tokens that stand one after another."""
        return cls(starts, targets, documents, np.zeros_like(starts), np.zeros_like(starts))

    def __len__(self) -> int:
        return len(self.starts)

    def chosen(self, which: NDArray[Any]) -> Pieces:
        """Return some of the pieces, by a mask or by their indices."""
        return Pieces(*(getattr(self, each.name)[which] for each in fields(self)))

    def weights(self, parts: EncodedParts) -> NDArray[np.float64]:
        """Return the sum of the loss weights of each piece's targets, float64 `(pieces,)`."""
        return self._both(parts.sums)

    def learned(self, parts: EncodedParts) -> NDArray[np.int64]:
        """Return the number of targets of each piece that are learned, int64 `(pieces,)`."""
        return self._both(parts.learned)

    def _both(self, of: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]) -> NDArray[Any]:
        """Return a figure of the targets in the head and behind the gap together."""
        ends = self.starts + self.targets + 1 + self.gaps
        has_gap = self.gaps > 0
        behind = np.where(has_gap, self.starts + self.heads + self.gaps + 1, ends)
        return np.asarray(of(self.starts + 1, np.where(has_gap, self.starts + self.heads, ends)) + of(behind, ends))


@dataclass(frozen=True, eq=False)
class Rows:
    """The assignment of pieces to rows.

    Args:
        pieces: the pieces of the documents.
        order: int64 `(pieces,)`; their indices, row after row, in the order they stand.
        bounds: int64 `(rows + 1,)`; row i holds the pieces `order[bounds[i]:bounds[i + 1]]`, at least one.
        sequence_length: positions of a row.
        shortened_documents: documents of several parts that are longer than a row, of which turns or a beginning were
            left out.
    """

    pieces: Pieces
    order: NDArray[np.int64]
    bounds: NDArray[np.int64]
    sequence_length: int
    shortened_documents: int = 0

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def members(self, row: int) -> NDArray[np.int64]:
        """Return the indices of a row's pieces in the order they stand."""
        return self.order[self.bounds[row] : self.bounds[row + 1]]

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """Number of targets of each row, int64 `(rows,)`."""
        return self.sums(self.pieces.targets)

    def sums(self, of_pieces: NDArray[Any]) -> NDArray[Any]:
        """Return the sum over each row, `(rows,)`, of a figure that each piece has, `(pieces,)`."""
        if not len(self):
            return of_pieces[:0]
        return np.asarray(np.add.reduceat(of_pieces[self.order], self.bounds[:-1]))

    @property
    def fill(self) -> float:
        """Share of positions that hold a real target, 0 to 1."""
        return float(self.pieces.targets.sum()) / (len(self) * self.sequence_length) if len(self) else 0.0

    @property
    def split_documents(self) -> int:
        """Documents that stand in several pieces: those longer than a row, and when concatenated those on an edge."""
        # A document's pieces stand one after another.
        again = np.flatnonzero(np.diff(self.pieces.documents) == 0)
        return len(np.unique(self.pieces.documents[again]))


@dataclass(frozen=True, eq=False)
class TokenBlock:
    """Rows of tokens as a model takes them; every array is `(rows, sequence_length)`.

    Args:
        token_ids: int32; 0 where there is no token.
        targets: int32; the token that follows, 0 where there is none.
        positions: int32; counted from 0 in each piece.
        segment_ids: int32; pieces of a row are numbered from 1, 0 is padding.
        documents: int64; which document each target belongs to, -1 for padding.
        weights: float32; how much each target counts: 1, or what its part says; 0 for padding.
    """

    token_ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    positions: NDArray[np.int32]
    segment_ids: NDArray[np.int32]
    documents: NDArray[np.int64]
    weights: NDArray[np.float32]


def cut(encoded: EncodedDocuments, *, sequence_length: int) -> Pieces:
    """Return the documents as pieces of at most `sequence_length` targets, without losing a token.

    Raises:
        TokenArgumentError: `sequence_length` is below 1.
    """
    if sequence_length < 1:
        raise TokenArgumentError(f"sequence_length must be at least 1. Received: {sequence_length}.")
    targets = np.maximum(encoded.lengths - 1, 0)
    counts = -(-targets // sequence_length)
    documents = np.repeat(np.arange(len(encoded), dtype=np.int64), counts)
    # Which piece of its document each one is: 0, 1, … from a running count less where the document began.
    first = np.repeat(np.cumsum(counts) - counts, counts)
    nth = np.arange(len(documents), dtype=np.int64) - first
    pieces = Pieces.without_gaps(
        starts=encoded.offsets[:-1][documents] + nth * sequence_length,
        targets=np.minimum(targets[documents] - nth * sequence_length, sequence_length),
        documents=documents,
    )
    return _learned(pieces, encoded)


def _learned(pieces: Pieces, encoded: EncodedDocuments) -> Pieces:
    """Return the pieces of which something is learned."""
    return pieces if encoded.parts is None else pieces.chosen(pieces.learned(encoded.parts) > 0)


def shortened(encoded: EncodedDocuments, *, sequence_length: int) -> Pieces:
    """Return the documents as `cut` does, but those of several parts as one piece each, with the document's end.

    Of one that is longer than `sequence_length` targets, its head stays (`EncodedParts`), and whole turns behind that
    are left out until it fits. If its last turn is too long by itself, the beginning of that is left out; if even its
    head is, so is the head.

    Raises:
        TokenArgumentError: `sequence_length` is below 1.
    """
    pieces, parts = cut(encoded, sequence_length=sequence_length), encoded.parts
    if parts is None:
        return pieces
    too_long = _too_long(encoded, sequence_length)
    if not len(too_long):
        return pieces
    rows = [shortened_piece(encoded, int(document), sequence_length) for document in too_long]
    fitting = pieces.chosen(~np.isin(pieces.documents, too_long))
    every = zip(*rows, strict=True)
    joined = Pieces(
        *(np.append(getattr(fitting, each.name), column) for each, column in zip(fields(Pieces), every, strict=True))
    )
    return _learned(joined.chosen(np.argsort(joined.documents, kind="stable")), encoded)


def _too_long(encoded: EncodedDocuments, sequence_length: int) -> NDArray[np.int64]:
    """Return which documents of several parts are longer than a row."""
    if encoded.parts is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero((np.diff(encoded.parts.offsets) > 1) & (encoded.lengths - 1 > sequence_length))


def shortened_piece(encoded: EncodedDocuments, document: int, sequence_length: int) -> tuple[int, int, int, int, int]:
    """Return the fields of a `Pieces` of one document that is too long."""
    start, length = int(encoded.offsets[document]), int(encoded.lengths[document])
    own = DocumentParts.whole(length, 0) if encoded.parts is None else encoded.parts.of_document(document)
    head = own.head if own.head < sequence_length else 0
    room = sequence_length + 1 - head  # tokens behind the head
    begins = np.append(0, own.ends[:-1])[own.turns > 0]
    fitting = begins[(begins > head) & (length - begins <= room) & (begins < length - 1)]
    begin = int(fitting[0]) if len(fitting) else length - room
    if not head:
        return start + begin, length - begin - 1, document, 0, 0
    return start, head + length - begin - 1, document, head, begin - head


def pack(
    encoded: EncodedDocuments, *, sequence_length: int, packing: Packing = "best_fit", scoring: bool = False
) -> Rows:
    """Return which pieces of the documents share which row.

    Args:
        encoded: the documents.
        sequence_length: positions of a row.
        packing: `"best_fit"` puts each piece, the longest first, into the fullest row that still has room for it
            (best-fit decreasing); `"none"` gives each a row of its own; `"concatenate"` writes the documents one after
            another and begins a new row where one is full, so that only the last has padding, and a document that
            stands on an edge is split there.
        scoring: whether a document with parts that is longer than a row is cut into pieces, as others are, so that each
            of its targets is predicted, rather than shortened; see `shortened`.

    Returns:
        The rows; the same ones each time.

    Raises:
        TokenArgumentError: `packing` is none of the three, or `sequence_length` is below 1.

    Source: best-fit decreasing, D. S. Johnson 1973; for language models Ding et al. 2024 (arXiv 2404.10830).
    """
    whole = cut if scoring else shortened
    if packing == "concatenate":
        pieces, in_row = _cut_on_edges(encoded, sequence_length)
        order = np.arange(len(pieces), dtype=np.int64)
        bounds = np.append(np.unique(in_row, return_index=True)[1], len(pieces))
    elif packing == "none":
        pieces = whole(encoded, sequence_length=sequence_length)
        order = np.arange(len(pieces), dtype=np.int64)
        bounds = np.arange(len(pieces) + 1)
    elif packing == "best_fit":
        pieces = whole(encoded, sequence_length=sequence_length)
        order, bounds = best_fit(pieces.targets, sequence_length)
    else:
        raise TokenArgumentError(f"packing must be 'best_fit', 'none' or 'concatenate'. Received: {packing!r}.")
    left_out = 0 if scoring or packing == "concatenate" else len(_too_long(encoded, sequence_length))
    return Rows(pieces, order, bounds.astype(np.int64), sequence_length, shortened_documents=left_out)


def _cut_on_edges(encoded: EncodedDocuments, sequence_length: int) -> tuple[Pieces, NDArray[np.int64]]:
    """Cut the documents, written one after another, into pieces that end where a document or a row ends.

    Returns:
        The pieces of which something is learned, and the row of each, int64 `(pieces,)`.
    """
    if sequence_length < 1:
        raise TokenArgumentError(f"sequence_length must be at least 1. Received: {sequence_length}.")
    targets = np.maximum(encoded.lengths - 1, 0)
    ends = np.cumsum(targets)
    total = int(ends[-1]) if len(ends) else 0
    edges = np.unique(np.concatenate([[0], ends, np.arange(0, total, sequence_length, dtype=np.int64), [total]]))
    begins = edges[:-1].astype(np.int64)
    documents = np.searchsorted(ends, begins, side="right").astype(np.int64)
    inside = begins - (ends - targets)[documents]
    pieces = Pieces.without_gaps(encoded.offsets[:-1][documents] + inside, np.diff(edges), documents)
    in_row = begins // sequence_length
    if encoded.parts is None:
        return pieces, in_row
    learned = pieces.learned(encoded.parts) > 0
    return pieces.chosen(learned), in_row[learned]


def best_fit(lengths: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the `order` and `bounds` of rows of pieces of these lengths.

    Best-fit decreasing in time linear in the pieces: the rows with room r wait in `waiting[r]`.
    """
    row_of = np.zeros(len(lengths), np.int64)
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set while waiting[r] holds a row
    count = 0
    longest_first = np.argsort(-lengths, kind="stable")
    for index, length in zip(longest_first.tolist(), lengths[longest_first].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1  # the least room that is enough
            row = waiting[room].pop()
            if not waiting[room]:
                rooms &= ~(1 << room)
        else:
            room = capacity
            row = count
            count += 1
        row_of[index] = row
        waiting[room - length].append(row)
        rooms |= 1 << (room - length)
    # Room 0 is never asked for, since every piece has a target. Within a row the longest stands first.
    order = longest_first[np.argsort(row_of[longest_first], kind="stable")]
    return order, np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=count))])


def block(
    encoded: EncodedDocuments, rows: Rows, indices: Sequence[int] | NDArray[np.int64], *, size: int
) -> TokenBlock:
    """Return the rows named by `indices` as arrays, filled up to `size` rows with padding.

    Args:
        encoded: the documents that the rows were packed from.
        rows: what `pack` returned.
        indices: the rows wanted, at most `size`.
        size: rows of the block; a batch of one shape compiles once.

    Raises:
        TokenArgumentError: more rows are wanted than `size`.
    """
    if len(indices) > size:
        raise TokenArgumentError(f"A block of {size} rows can't hold {len(indices)}.")
    shape = (size, rows.sequence_length)
    token_ids = np.zeros(shape, np.int32)
    targets = np.zeros(shape, np.int32)
    positions = np.zeros(shape, np.int32)
    segment_ids = np.zeros(shape, np.int32)
    documents = np.full(shape, -1, np.int64)
    weights = np.zeros(shape, np.float32)
    row_indices = np.asarray(indices, np.int64)
    per_row = np.diff(rows.bounds)[row_indices]
    segments = ranges(per_row)  # (pieces here,), counted from 0 in each row
    pieces = rows.order[np.repeat(rows.bounds[row_indices], per_row) + segments]
    counts = rows.pieces.targets[pieces]
    inside = ranges(counts)  # (targets here,), counted from 0 in each piece
    source = np.repeat(rows.pieces.starts[pieces], counts) + inside
    following = source + 1
    gaps, heads = rows.pieces.gaps[pieces], rows.pieces.heads[pieces]
    if gaps.any():
        gap, head = np.repeat(gaps, counts), np.repeat(heads, counts)
        source = source + np.where(inside >= head, gap, 0)
        following = following + np.where(inside + 1 >= head, gap, 0)
    per_row_targets = rows.targets[row_indices]
    place = (np.repeat(np.arange(len(row_indices)), per_row_targets), ranges(per_row_targets))
    ids = np.asarray(encoded.token_ids)  # a memory map's own indexing would make maps of what it reads
    token_ids[place] = ids[source]
    targets[place] = ids[following]
    positions[place] = inside
    segment_ids[place] = np.repeat(segments + 1, counts)
    documents[place] = np.repeat(rows.pieces.documents[pieces], counts)
    if encoded.parts is None:
        weights[place] = 1.0
    else:
        weights[place] = encoded.parts.weights_of(following)
        weights[place] *= ~((np.repeat(gaps, counts) > 0) & (inside + 1 == np.repeat(heads, counts)))
    return TokenBlock(token_ids, targets, positions, segment_ids, documents, weights)


def ranges(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, … up to each count, one after another: `[2, 3]` gives `[0, 1, 0, 1, 2]`."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts)
