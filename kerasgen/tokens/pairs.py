"""Packs pairs of a better and a worse text: both stand at the same place of two rows that are read together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import Pieces, Rows, TokenBlock, best_fit, block, shortened_piece


@dataclass(frozen=True, eq=False)
class PairRows:
    """The assignment of pairs to rows: the n-th piece of a row of one side and of the other are a pair.

    Args:
        chosen: rows of the better texts, each as one piece.
        rejected: rows of the worse texts, with the same `order` and `bounds`.
        most: pairs of the row that holds the most.
    """

    chosen: Rows
    rejected: Rows
    most: int

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def shortened_documents(self) -> int:
        """Pairs that are longer than a row, of whose prompt the beginning, or turns, were left out on both sides."""
        return self.chosen.shortened_documents

    def pairs(self, rows: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
        """Return which pair stands at each place of the rows, int64 `(rows, most)`; -1 for a place without one."""
        found = np.full((len(rows), self.most), -1, np.int64)
        for place, row in enumerate(np.asarray(rows).tolist()):
            members = self.chosen.members(row)
            found[place, : len(members)] = self.chosen.pieces.documents[members]
        return found


def pack_pairs(
    encoded: EncodedDocuments, *, sequence_length: int, packing: Literal["best_fit", "none"] = "best_fit"
) -> PairRows:
    """Return which pairs share which rows; every pair is whole, and each text of it is one piece.

    A pair of which a text is longer than `sequence_length` targets is shortened as `packing.shortened` shortens that
    text: its start token and system turn stay, and behind them whole turns or the beginning of the prompt are left out.
    From the other text the same tokens are left out, as far as they are its prompt's. An answer's end always stays.

    Args:
        encoded: documents that all have a worse text.
        sequence_length: positions of a row.
        packing: `"best_fit"` or `"none"`, as in `packing.pack`; a pair is as long as the longer of its texts.

    Raises:
        TokenArgumentError: a document has no worse text, `packing` is another, or `sequence_length` is below 1.
    """
    if sequence_length < 1:
        raise TokenArgumentError(f"sequence_length must be at least 1. Received: {sequence_length}.")
    if packing not in ("best_fit", "none"):
        raise TokenArgumentError(f"Pairs are kept whole: packing must be 'best_fit' or 'none'. Received: {packing!r}.")
    rejected = encoded.rejected
    if rejected is None or (rejected.lengths < 2).any():
        raise TokenArgumentError("Each document of a pair needs a worse text.")
    too_long = np.flatnonzero(np.maximum(encoded.lengths, rejected.lengths) - 1 > sequence_length)
    sides = [_whole(side) for side in (encoded, rejected)]
    for pair in too_long.tolist():
        for pieces, piece in zip(sides, _shortened(encoded, rejected, pair, sequence_length), strict=True):
            pieces.starts[pair], pieces.targets[pair], pieces.heads[pair], pieces.gaps[pair] = piece
    lengths = np.maximum(sides[0].targets, sides[1].targets)
    order, bounds = np.arange(len(encoded), dtype=np.int64), np.arange(len(encoded) + 1)
    if packing == "best_fit":
        order, bounds = best_fit(lengths, sequence_length)
    chosen, worse = (
        Rows(pieces, order, bounds.astype(np.int64), sequence_length, shortened_documents=len(too_long))
        for pieces in sides
    )
    return PairRows(chosen, worse, int(np.diff(bounds).max(initial=0)))


def pair_block(
    encoded: EncodedDocuments, rows: PairRows, indices: Sequence[int] | NDArray[np.int64], *, size: int
) -> TokenBlock:
    """Return rows of pairs as arrays `(size, 2, sequence_length)`, the better texts at 0 and the worse ones at 1.

    Args:
        encoded: the documents that the rows were packed from.
        rows: what `pack_pairs` returned.
        indices: the rows wanted, at most `size`.
        size: rows of the block.
    """
    assert encoded.rejected is not None
    better = block(encoded, rows.chosen, indices, size=size)
    worse = block(encoded.rejected, rows.rejected, indices, size=size)
    return TokenBlock(
        *(np.stack(both, axis=1) for both in zip(vars(better).values(), vars(worse).values(), strict=True))
    )


def _whole(encoded: EncodedDocuments) -> Pieces:
    """Return each document as one piece, however long it is."""
    return Pieces.without_gaps(
        encoded.offsets[:-1].astype(np.int64), encoded.lengths - 1, np.arange(len(encoded), dtype=np.int64)
    )


def _shortened(
    better: EncodedDocuments, worse: EncodedDocuments, pair: int, sequence_length: int
) -> list[tuple[int, int, int, int]]:
    """Return start, targets, head and gap of both texts of a pair that is too long."""
    sides = [better, worse]
    longer = max(sides, key=lambda side: int(side.lengths[pair]))
    start, _, _, head, gap = shortened_piece(longer, pair, sequence_length)
    left_out = gap if head else start - int(longer.offsets[pair])
    return [
        _piece(side, pair, head, left_out if side is longer else _left_out(side, pair, head, left_out, sequence_length))
        for side in sides
    ]


def _left_out(encoded: EncodedDocuments, pair: int, head: int, asked: int, sequence_length: int) -> int:
    """Return how many tokens behind its head a text is left without where the longer one is left without `asked`."""
    prompt = 0
    if encoded.parts is not None:
        own = encoded.parts.of_document(pair)
        prompt = int(own.ends[np.flatnonzero(own.weights > 0)[0] - 1]) if not own.weights[0] else 0
    # The token behind what is left out is never learned, so it is the prompt's last one at most.
    most = max(prompt - 1 - head, 0)
    return max(min(asked, most), int(encoded.lengths[pair]) - 1 - sequence_length)


def _piece(encoded: EncodedDocuments, pair: int, head: int, left_out: int) -> tuple[int, int, int, int]:
    start, targets = int(encoded.offsets[pair]), int(encoded.lengths[pair]) - 1 - left_out
    if not left_out:
        return start, targets, 0, 0
    return (start, targets, head, left_out) if head else (start + left_out, targets, 0, 0)
