"""Divides rows into batches in a seeded order, in which any step can be found again. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import Rows, block


@dataclass(frozen=True, eq=False)
class Plan:
    """The assignment of rows to batches and optimizer steps.

    An optimizer step takes a window of `batches_per_step` batches. An epoch is filled up to whole windows with empty
    rows, which weigh nothing.

    Args:
        encoded: the documents.
        rows: what they were packed into.
        batch_size: rows of a batch.
        batches_per_step: batches whose gradients make one optimizer step.
        epochs: passes over the rows.
        max_steps: optimizer steps at most, or None.
        seed: the seed of the order of the rows.
        shares: into how many parts processes split each batch.
        share: which of them this process reads.
    """

    encoded: EncodedDocuments
    rows: Rows
    batch_size: int
    batches_per_step: int
    epochs: int
    max_steps: int | None
    seed: int
    shares: int = 1
    share: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole pass."""
        return -(-len(self.rows) // (self.batch_size * self.batches_per_step))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        whole = self.steps_per_epoch * self.epochs
        return whole if self.max_steps is None else min(whole, self.max_steps)

    @property
    def shown_epochs(self) -> int:
        """Passes that the run begins."""
        return -(-self.steps // self.steps_per_epoch)

    def epoch_of(self, step: int) -> int:
        """Return which epoch a step of the run is in."""
        return step // self.steps_per_epoch

    def is_epochs_end(self, step: int) -> bool:
        """Return whether an epoch ends before this step of the run."""
        return step % self.steps_per_epoch == 0

    def passes(self, step: int) -> float:
        """Return passes over the documents after so many steps."""
        return step / self.steps_per_epoch

    @property
    def ends_itself(self) -> bool:
        """Whether the run ends with the last of its epochs, and not before."""
        return self.steps == self.steps_per_epoch * self.epochs

    @property
    def documents(self) -> int:
        """Training documents."""
        return len(self.encoded)

    @property
    def split_documents(self) -> int:
        """Documents that stand in several pieces."""
        return self.rows.split_documents

    @property
    def shortened_documents(self) -> int:
        """Documents of which turns or a beginning were left out."""
        return self.rows.shortened_documents

    def tally(self) -> Mapping[str, Any]:
        """Return what reading the documents kept and dropped, where this run reads them."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """Return what a checkpoint must say of where the run is in its documents, beside the step."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where a checkpoint says that the run was.

        Args:
            state: with what `state` returned then.
        """

    @property
    def fill(self) -> float:
        """Share of positions that hold a real target, 0 to 1."""
        return self.rows.fill

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the rows in one epoch, the same each time."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))

    def batches(self, epoch: int, *, first_step: int) -> Batches:
        """Return the batches of one epoch, from a step of the whole run to the epoch's or the run's end."""
        begin = epoch * self.steps_per_epoch
        stop = min(begin + self.steps_per_epoch, self.steps)
        return self.of_steps(epoch, first_step - begin, stop - begin)

    def of_steps(self, epoch: int, first: int, stop: int) -> Batches:
        """Return the batches of some steps, which are counted in the epoch."""
        return Batches(self, epoch, first, stop)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of the steps `first` to `stop` of one epoch, for Keras's `fit`.

    Args:
        plan: the run's.
        epoch: which pass.
        first: the first step, counted in the epoch.
        stop: the step after the last.
    """

    def __init__(self, plan: Plan, epoch: int, first: int, stop: int) -> None:
        super().__init__()
        self.plan = plan
        self.first, self.stop = first, stop
        self._order = plan.order(epoch)
        pieces, parts = plan.rows.pieces, plan.encoded.parts
        self._row_targets = plan.rows.targets
        self._row_learned = self._row_targets if parts is None else plan.rows.sums(pieces.learned(parts))
        self._row_weights = self._row_targets if parts is None else plan.rows.sums(pieces.weights(parts))

    def __len__(self) -> int:
        return (self.stop - self.first) * self.plan.batches_per_step

    def __getitem__(self, index: int) -> tuple[dict[str, Any]]:
        plan = self.plan
        rows, of_batch, size = self._rows_of(index)
        batch = block(plan.encoded, plan.rows, of_batch, size=size)
        # Keras averages the gradients of a window's batches. Weighted so, that average is the gradient of the mean
        # over all tokens of the window, however unevenly they fall on the batches.
        weight = plan.batches_per_step / float(self._row_weights[rows].sum())
        return (
            {
                "token_ids": batch.token_ids,
                "targets": batch.targets,
                "positions": batch.positions,
                "segment_ids": batch.segment_ids,
                "weights": (batch.weights * weight).astype(np.float32),
            },
        )

    def _rows_of(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Return the rows of a batch's window, those of this process in the batch, and how many it has room for."""
        plan = self.plan
        step, part = divmod(index, plan.batches_per_step)
        window = plan.batch_size * plan.batches_per_step
        rows = self._order[(self.first + step) * window : (self.first + step + 1) * window]
        size = plan.batch_size // plan.shares
        begin = part * plan.batch_size + plan.share * size
        return rows, rows[begin : begin + size], size

    def tokens(self) -> int:
        """Target tokens of all these batches, those with them that are only read."""
        return int(self._row_targets[self._rows()].sum())

    def read_tokens(self) -> int:
        """Tokens of all these batches that are only read."""
        return self.tokens() - int(self._row_learned[self._rows()].sum())

    def characters(self) -> int:
        """Characters of all these batches; a split document's count where most of it stands, in proportion."""
        pieces = self.plan.rows.pieces
        share = self.plan.encoded.characters / np.maximum(self.plan.encoded.lengths - 1, 1)
        per_piece = pieces.targets * share[pieces.documents]
        return round(float(self.plan.rows.sums(per_piece)[self._rows()].sum()))

    def _rows(self) -> NDArray[np.int64]:
        window = self.plan.batch_size * self.plan.batches_per_step
        return self._order[self.first * window : self.stop * window]
