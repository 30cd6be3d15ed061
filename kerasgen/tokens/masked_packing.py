"""Packs documents into rows for a masked language model: each piece stands between a start and an end token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import Packing, Pieces, Rows, best_fit, ranges

EDGES = 2  # the start and the end token of a piece


@dataclass(frozen=True, eq=False)
class MaskedBlock:
    """Rows of tokens as a masked language model takes them, before any is masked; every array is `(rows, length)`.

    Args:
        token_ids: int32; 0 where there is no token.
        positions: int32; counted from 0 in each piece.
        segment_ids: int32; pieces of a row are numbered from 1, 0 is padding.
        documents: int64; which document each token is of, -1 for padding and edges.
        weights: float32; how much each token counts where it is masked: 1, or what its part says; 0 for edges,
            padding and what is only read.
    """

    token_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    segment_ids: NDArray[np.int32]
    documents: NDArray[np.int64]
    weights: NDArray[np.float32]


def pack_masked(encoded: EncodedDocuments, *, sequence_length: int, packing: Packing = "best_fit") -> Rows:
    """Return which pieces of the documents share which row.

    A document of more than `sequence_length - 2` tokens is cut into pieces that don't see each other; nothing is left
    out. The targets of the rows' pieces are their tokens without start and end.

    Args:
        encoded: documents with a start and an end token each.
        sequence_length: positions of a row.
        packing: `"best_fit"` or `"none"`, as for `kerasgen.tokens.packing.pack`.

    Raises:
        TokenArgumentError: `packing` is another, or `sequence_length` is below 3.
    """
    if sequence_length < EDGES + 1:
        raise TokenArgumentError(f"sequence_length must be at least {EDGES + 1}. Received: {sequence_length}.")
    room = sequence_length - EDGES
    bodies = np.maximum(encoded.lengths - EDGES, 0)
    counts = -(-bodies // room)
    documents = np.repeat(np.arange(len(encoded), dtype=np.int64), counts)
    nth = ranges(counts)
    pieces = Pieces.without_gaps(
        starts=encoded.offsets[:-1][documents] + 1 + nth * room,
        targets=np.minimum(bodies[documents] - nth * room, room),
        documents=documents,
    )
    if encoded.parts is not None:
        pieces = pieces.chosen(encoded.parts.learned(pieces.starts, pieces.starts + pieces.targets) > 0)
    if packing == "none":
        order, bounds = np.arange(len(pieces), dtype=np.int64), np.arange(len(pieces) + 1)
    elif packing == "best_fit":
        order, bounds = best_fit(pieces.targets + EDGES, sequence_length)
    else:
        raise TokenArgumentError(
            f"packing must be 'best_fit' or 'none' for a masked language model. Received: {packing!r}."
        )
    return Rows(pieces, order, bounds.astype(np.int64), sequence_length)


def masked_block(
    encoded: EncodedDocuments,
    rows: Rows,
    indices: Sequence[int] | NDArray[np.int64],
    *,
    size: int,
    start: int,
    end: int,
) -> MaskedBlock:
    """Return the rows named by `indices` as arrays, filled up to `size` rows with padding.

    Args:
        encoded: the documents that the rows were packed from.
        rows: what `pack_masked` returned.
        indices: the rows wanted, at most `size`.
        size: rows of the block.
        start: the id of the start token.
        end: the id of the end token.

    Raises:
        TokenArgumentError: more rows are wanted than `size`.
    """
    if len(indices) > size:
        raise TokenArgumentError(f"A block of {size} rows can't hold {len(indices)}.")
    shape = (size, rows.sequence_length)
    token_ids, positions, segment_ids = (np.zeros(shape, np.int32) for _ in range(3))
    documents, weights = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    row_indices = np.asarray(indices, np.int64)
    per_row = np.diff(rows.bounds)[row_indices]
    segments = ranges(per_row)
    pieces = rows.order[np.repeat(rows.bounds[row_indices], per_row) + segments]
    bodies = rows.pieces.targets[pieces]
    counts = bodies + EDGES
    inside = ranges(counts)
    of_row = np.repeat(np.arange(len(row_indices)), per_row)
    ends = np.cumsum(counts)
    before = np.repeat(np.append(0, ends)[np.append(0, np.cumsum(per_row))[:-1]], per_row)  # tokens of earlier rows
    place: tuple[Any, Any] = (np.repeat(of_row, counts), np.arange(int(counts.sum())) - np.repeat(before, counts))
    is_body = (inside > 0) & (inside < np.repeat(counts, counts) - 1)
    source = np.repeat(rows.pieces.starts[pieces], counts) + inside - 1
    ids = np.where(inside == 0, start, end).astype(np.int32)
    ids[is_body] = np.asarray(encoded.token_ids)[source[is_body]]
    token_ids[place] = ids
    positions[place] = inside
    segment_ids[place] = np.repeat(segments + 1, counts)
    documents[place] = np.where(is_body, np.repeat(rows.pieces.documents[pieces], counts), -1)
    learned = is_body.astype(np.float32)
    if encoded.parts is not None:
        learned[is_body] = encoded.parts.weights_of(source[is_body])
    weights[place] = learned
    return MaskedBlock(token_ids, positions, segment_ids, documents, weights)
