"""Divides pairs into batches: rows of better and of worse texts, and what the reference says of them.

Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.pairs import PairRows, pair_block
from kerasgen.tuners.plan import Batches, Plan

TOKENS = ("token_ids", "targets", "positions", "segment_ids", "weights")
"""What a batch of pairs has for each position."""


@dataclass(frozen=True, eq=False)
class PairPlan(Plan):
    """The assignment of rows of pairs to batches; `rows` are those of the better texts.

    Args:
        pairs: the rows of both sides.
        reference: float64 `(pairs, 2)`; log-probabilities under the reference, of better and worse texts, filled in
            before the first step.
    """

    pairs: PairRows | None = None
    reference: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    @property
    def fill(self) -> float:
        """Share of positions that hold a real target, 0 to 1."""
        assert self.pairs is not None
        return (self.pairs.chosen.fill + self.pairs.rejected.fill) / 2

    def of_steps(self, epoch: int, first: int, stop: int) -> PairBatches:
        """Return the batches of some steps of one epoch, as `Plan.of_steps` does."""
        return PairBatches(self, epoch, first, stop)


def inputs_of(
    encoded: EncodedDocuments, pairs: PairRows, rows: NDArray[np.int64] | Sequence[int], *, size: int
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Return what a model takes of rows of pairs, and which pair stands at each place.

    Args:
        encoded: the documents.
        pairs: their rows.
        rows: at most `size`.
        size: rows of the batch; those without pairs come last.

    Returns:
        Arrays `(size, 2, sequence_length)` by the names in `TOKENS`, of which weights only say which targets are
        learned; and int64 `(size, places)`, -1 where there is no pair.
    """
    block = pair_block(encoded, pairs, rows, size=size)
    inputs = {name: getattr(block, name) for name in TOKENS}
    inputs["weights"] = (block.weights > 0).astype(np.float32)
    places = np.full((size, pairs.most), -1, np.int64)
    places[: len(rows)] = pairs.pairs(rows)
    return inputs, places


class PairBatches(Batches):
    """The batches of the steps of one epoch over pairs, for Keras's `fit`.

    The arguments are those of `Batches`.
    """

    plan: PairPlan

    def __init__(self, plan: PairPlan, epoch: int, first: int, stop: int) -> None:
        super().__init__(plan, epoch, first, stop)
        assert plan.pairs is not None
        self._pairs = plan.pairs
        self._row_pairs = np.diff(plan.rows.bounds)
        worse, rejected = plan.pairs.rejected, plan.encoded.rejected
        assert rejected is not None
        self._row_targets = self._row_targets + worse.targets
        parts = rejected.parts
        self._row_learned = self._row_learned + (
            worse.targets if parts is None else worse.sums(worse.pieces.learned(parts))
        )

    def __getitem__(self, index: int) -> tuple[dict[str, Any]]:
        plan = self.plan
        rows, of_batch, size = self._rows_of(index)
        inputs, places = inputs_of(plan.encoded, self._pairs, of_batch, size=size)
        # As for tokens in `Batches`: a window's batches are averaged, and the mean is over all of its pairs.
        weight = plan.batches_per_step / float(self._row_pairs[rows].sum())
        is_pair = places >= 0
        reference = np.where(is_pair[:, None], plan.reference[places].swapaxes(1, 2), 0.0)
        return (
            inputs
            | {"reference": reference.astype(np.float32), "pair_weights": is_pair.astype("f4") * np.float32(weight)},
        )

    def characters(self) -> int:
        """Characters of all these batches, of both answers."""
        encoded = self.plan.encoded
        assert encoded.rejected is not None
        per_pair = encoded.characters + encoded.rejected.characters
        return int(self.plan.rows.sums(per_pair[self.plan.rows.pieces.documents])[self._rows()].sum())
