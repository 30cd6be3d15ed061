"""The objective of a masked language model: tokens masked anew in each epoch. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from kerasgen.errors import TuneArgumentError
from kerasgen.models import masked_predicting
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.models.cross_entropy import WeightedLoss, token_nll, weighted_loss
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.masked_packing import EDGES, masked_block, pack_masked
from kerasgen.tokens.packing import Packing, Rows
from kerasgen.tuners import held_out, sharding
from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.masking import MaskedTokens, Masking
from kerasgen.tuners.objective import Objective, schedule_of
from kerasgen.tuners.plan import Batches, Plan
from kerasgen.tuners.report import Validation
from kerasgen.tuners.settings import GradientTuner
from kerasgen.tuners.trainer import Trainer

_POSITIONS = 16
"""Positions that a validation may compute for each of the tokens that it may score: a row of n tokens takes n²."""

_HELD_OUT_SEED = 0  # of the masks of held-out documents, whatever the run's is


class MaskedTrainer(Trainer):
    """The masked language model as `fit` trains it; the arguments are those of `Trainer`."""

    def weighted(self, inputs: Mapping[str, Any], *, training: bool | None = None) -> WeightedLoss:
        """Return the loss at masked places: each one's nats times its `inputs["weights"]`, summed."""
        states, table = self._output(inputs, training=training)
        trained = bool(self.causal_lm.places["embedding.tokens"].trainable_variables)
        return weighted_loss(states, table, inputs["targets"], inputs["weights"], table_gradient=trained)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return the batch's loss while training, and otherwise the nats of each target."""
        if training:
            return self.weighted(inputs, training=True)
        states, table = self._output(inputs, training=False)
        return token_nll(states, table, inputs["targets"])

    def _output(self, inputs: Mapping[str, Any], *, training: bool | None) -> tuple[Any, Any]:  # type: ignore[override]
        states = self.causal_lm.hidden(inputs, training=training)
        ones = ops.ones((*ops.shape(states)[:-1], 8), states.dtype)
        return ops.concatenate([states, ones], axis=-1), self.causal_lm.output_table()


@dataclass(frozen=True, eq=False)
class MaskedPlan(Plan):
    """The assignment of rows to batches and steps, with the masks of each epoch.

    Args:
        model: whose start and end tokens stand around each piece.
        masking: how tokens are masked.
    """

    model: Any = None
    masking: Any = None

    def of_steps(self, epoch: int, first: int, stop: int) -> MaskedBatches:
        """Return the batches of some steps of one epoch, as `Plan.of_steps` does."""
        return MaskedBatches(self, epoch, first, stop)

    def masked(self, epoch: int, rows: NDArray[np.int64], size: int) -> tuple[dict[str, Any], MaskedTokens]:
        """Return what a model takes of rows but their tokens, and those with the masks of an epoch."""
        return masked_rows(
            self.model, self.masking, self.encoded, self.rows, rows, seed=self.seed, epoch=epoch, size=size
        )


def masked_rows(
    model: MaskedLanguageModel,
    masking: Masking,
    encoded: EncodedDocuments,
    packed: Rows,
    rows: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    size: int,
) -> tuple[dict[str, Any], MaskedTokens]:
    """Return positions and segments of rows, and their tokens with masks that seed, epoch and row decide."""
    tokenizer = model.tokenizer
    assert tokenizer.start_token_id is not None
    block = masked_block(encoded, packed, rows, size=size, start=tokenizer.start_token_id, end=tokenizer.end_token_id)
    tokens = masking.draw(block, [[seed, epoch, row] for row in rows.tolist()])
    return {"positions": block.positions, "segment_ids": block.segment_ids}, tokens


class MaskedBatches(Batches):
    """The batches of the steps of one epoch, masked, for Keras's `fit`. The arguments are those of `Batches`."""

    plan: MaskedPlan

    def __init__(self, plan: MaskedPlan, epoch: int, first: int, stop: int) -> None:
        super().__init__(plan, epoch, first, stop)
        self._epoch = epoch
        parts = plan.encoded.parts
        if parts is not None:  # of which `Batches` counts targets, a token further on
            pieces = plan.rows.pieces
            begins, ends = pieces.starts, pieces.starts + pieces.targets
            self._row_learned = plan.rows.sums(parts.learned(begins, ends))
            self._row_weights = plan.rows.sums(parts.sums(begins, ends))

    def __getitem__(self, index: int) -> tuple[dict[str, Any]]:
        plan = self.plan
        rows, of_batch, size = self._rows_of(index)
        _, whole = plan.masked(self._epoch, rows, len(rows))
        inputs, tokens = plan.masked(self._epoch, of_batch, size)
        # As in `Batches`: the average of a window's batches is the mean over all of its masked places.
        weight = plan.batches_per_step / float(whole.weights.sum(dtype=np.float64))
        return (
            inputs
            | {
                "token_ids": tokens.token_ids,
                "targets": tokens.targets,
                "weights": (tokens.weights * weight).astype(np.float32),
            },
        )


class MaskedObjective(Objective):
    """Tokens that are masked, predicted from all others of their document.

    Args:
        settings: the tuner, before anything that it left open is decided.
        model: a masked language model.
    """

    trainer = MaskedTrainer

    def __init__(self, settings: GradientTuner, model: MaskedLanguageModel) -> None:
        super().__init__(settings)
        self.model = model

    @cached_property
    def masking(self) -> Masking:
        """How tokens are masked."""
        return Masking(self.model.tokenizer, self.settings.masking, self.settings.mask_rate)

    def check(self, job: TuneJob) -> None:
        """Raise a `TuneArgumentError` if a setting has no meaning for a masked language model."""
        settings = self.settings
        if settings.packing == "concatenate":
            raise TuneArgumentError(
                "packing='concatenate' cuts documents where a row is full, and a masked language model reads whole "
                "ones. Use 'best_fit' or 'none'."
            )
        if settings.remat:
            raise TuneArgumentError("remat=True is for causal models. Leave it out.")
        if settings.distribution not in (None, "data"):
            raise TuneArgumentError(
                f"A masked language model is not split over devices. Received: distribution={settings.distribution!r}. "
                "Use 'data'."
            )
        if settings.sequence_length is not None and settings.sequence_length <= EDGES:
            raise TuneArgumentError(
                "sequence_length must leave room for a token between start and end. Received: "
                f"{settings.sequence_length}."
            )

    def targets(self, train: EncodedDocuments) -> NDArray[np.int64]:
        """Return how many positions each document takes, int64 `(documents,)`."""
        return np.where(train.lengths > EDGES, train.lengths, 0)

    def plan(self, job: TuneJob, settings: GradientTuner, share: sharding.Share) -> Plan:
        """Return the assignment of the documents to rows, batches and steps; see `Objective.plan`."""
        assert settings.sequence_length is not None
        packing: Packing = "none" if settings.packing == "none" else "best_fit"
        rows = pack_masked(job.train, sequence_length=settings.sequence_length, packing=packing)
        if not len(rows):
            raise TuneArgumentError("There is nothing to train on: no training document holds a token.")
        return MaskedPlan(
            encoded=job.train,
            rows=rows,
            **schedule_of(job, settings, share),
            model=job.model,
            masking=self.masking,
        )

    def validate(
        self, trainer: Trainer, plan: Plan, job: TuneJob, settings: GradientTuner
    ) -> Callable[[int], Validation]:
        """Return a function that scores the held-out documents; see `Objective.validate`.

        The loss is that at masked places, the same ones at each validation. Bits per character are of the
        pseudo-log-likelihood, on documents that take `validation_tokens` times 16 positions at most.
        """
        assert job.held_out is not None
        assert settings.sequence_length is not None
        length, size = settings.sequence_length, plan.batch_size
        bound = settings.validation_tokens
        bound = None if bound is None else max(bound, EDGES + 1)  # of fewer, a part would have none to mask
        masked = held_out.sampled(job.held_out, bound)
        scored = held_out.sampled(job.held_out, _affordable(job.held_out, bound, length))
        rows = pack_masked(masked, sequence_length=length)
        masking, model = self.masking, self.model

        def measure(step: int) -> Validation:
            total = count = 0.0
            for first in range(0, len(rows), size):
                of_batch = np.arange(first, min(first + size, len(rows)))
                inputs, tokens = masked_rows(
                    model, masking, masked, rows, of_batch, seed=_HELD_OUT_SEED, epoch=0, size=size
                )
                read = inputs | {"token_ids": tokens.token_ids, "targets": tokens.targets}
                nll = np.asarray(trainer.predict_on_batch(read | {"weights": tokens.weights}), np.float64)
                total += float((nll * (tokens.weights > 0)).sum())
                count += float((tokens.weights > 0).sum())
            if hasattr(trainer, "jax_state_sync"):
                trainer.jax_state_sync()  # within `fit`, the weights are elsewhere
            scores = masked_predicting.score(model, scored, sequence_length=length, batch_size=max(size, 64))
            found = held_out.validation(step, scores)
            return Validation(
                step,
                total / count,
                found.bits_per_character,
                documents=found.documents,
                tokens=found.tokens,
                standard_error=found.standard_error,
            )

        return measure


def _affordable(documents: EncodedDocuments, tokens: int | None, longest: int) -> int | None:
    """Return how many tokens of documents of these lengths can be masked one by one, or None for all.

    Args:
        documents: those of which they are taken.
        tokens: the bound of the tokens, at least `EDGES + 1`, as is what is returned; or None.
        longest: positions of a row, in which a longer document is cut.
    """
    if tokens is None or not len(documents):
        return None
    lengths = documents.lengths.astype(np.float64)
    mean = float((lengths * np.minimum(lengths, longest)).sum() / lengths.sum())  # positions that a token costs
    return max(EDGES + 1, min(tokens, int(tokens * _POSITIONS / mean)))
