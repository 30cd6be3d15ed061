"""Documents become rows of one length: packed so that little is padding, and no document sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.encoding import EncodedDocuments

Packing: TypeAlias = Literal["best_fit", "none"]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Documents cut to at most `sequence_length` targets; most are whole.

    A piece of n targets is n + 1 tokens: it begins with the last token of the piece before it, so each target of
    each document is predicted exactly once.

    Args:
        starts: int64 `(pieces,)`; where the piece's first token stands in the flat array.
        targets: int64 `(pieces,)`; how many targets it has, 1 to `sequence_length`.
        documents: int64 `(pieces,)`; which document it is of.
    """

    starts: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, eq=False)
class Rows:
    """Which pieces share which row.

    Args:
        pieces: the pieces, as `cut` made them.
        members: for each row, the indices of its pieces in the order they stand.
        sequence_length: positions of a row.
    """

    pieces: Pieces
    members: Sequence[NDArray[np.int64]]
    sequence_length: int

    def __len__(self) -> int:
        return len(self.members)

    @property
    def fill(self) -> float:
        """Share of positions that hold a real target, 0 to 1."""
        return float(self.pieces.targets.sum()) / (len(self) * self.sequence_length) if len(self) else 0.0

    @property
    def split_documents(self) -> int:
        """Documents longer than a row, which stand in several pieces."""
        _, counts = np.unique(self.pieces.documents, return_counts=True)
        return int((counts > 1).sum())


@dataclass(frozen=True, eq=False)
class TokenBlock:
    """Rows of tokens as a model takes them; every array is `(rows, sequence_length)`.

    Args:
        token_ids: int32; 0 where there is no token.
        targets: int32; the token that follows, 0 where there is none.
        positions: int32; counted from 0 in each piece.
        segment_ids: int32; pieces of a row are numbered from 1, 0 is padding.
        documents: int64; which document each target belongs to, -1 for padding.
    """

    token_ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    positions: NDArray[np.int32]
    segment_ids: NDArray[np.int32]
    documents: NDArray[np.int64]


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
    return Pieces(
        starts=encoded.offsets[:-1][documents] + nth * sequence_length,
        targets=np.minimum(targets[documents] - nth * sequence_length, sequence_length),
        documents=documents,
    )


def pack(encoded: EncodedDocuments, *, sequence_length: int, packing: Packing = "best_fit") -> Rows:
    """Return which pieces of the documents share which row.

    Args:
        encoded: the documents.
        sequence_length: positions of a row.
        packing: `"best_fit"` puts each piece, the longest first, into the fullest row that still has room for it
            (best-fit decreasing); `"none"` gives each a row of its own.

    Returns:
        The rows; the same ones each time.

    Raises:
        TokenArgumentError: `packing` is neither, or `sequence_length` is below 1.

    Source: best-fit decreasing, D. S. Johnson 1973; for language models Ding et al. 2024 (arXiv 2404.10830).
    """
    pieces = cut(encoded, sequence_length=sequence_length)
    if packing == "none":
        members = list(np.arange(len(pieces), dtype=np.int64).reshape(-1, 1))
    elif packing == "best_fit":
        members = _best_fit(pieces.targets, sequence_length)
    else:
        raise TokenArgumentError(f"packing must be 'best_fit' or 'none'. Received: {packing!r}.")
    return Rows(pieces=pieces, members=members, sequence_length=sequence_length)


def _best_fit(lengths: NDArray[np.int64], capacity: int) -> list[NDArray[np.int64]]:
    """Best-fit decreasing in time linear in the pieces: the rows with room r wait in `waiting[r]`."""
    rows: list[list[int]] = []
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set while waiting[r] holds a row
    for index in np.argsort(-lengths, kind="stable"):
        length = int(lengths[index])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1  # the least room that is enough
            row = waiting[room].pop()
            if not waiting[room]:
                rooms &= ~(1 << room)
            rows[row].append(int(index))
        else:
            room = capacity
            row = len(rows)
            rows.append([int(index)])
        waiting[room - length].append(row)
        rooms |= 1 << (room - length)
    # Room 0 is never asked for, since every piece has a target.
    return [np.asarray(row, dtype=np.int64) for row in rows]


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
    for place, index in enumerate(indices):
        at = 0
        for segment, piece in enumerate(rows.members[index], start=1):
            start, count = int(rows.pieces.starts[piece]), int(rows.pieces.targets[piece])
            to = slice(at, at + count)
            token_ids[place, to] = encoded.token_ids[start : start + count]
            targets[place, to] = encoded.token_ids[start + 1 : start + count + 1]
            positions[place, to] = np.arange(count)
            segment_ids[place, to] = segment
            documents[place, to] = rows.pieces.documents[piece]
            at += count
    return TokenBlock(token_ids, targets, positions, segment_ids, documents)
