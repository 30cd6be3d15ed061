"""The loss that a run minimizes and its validation figures; by default of the next token.

Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasgen.models.scoring import score
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import pack
from kerasgen.tuners import held_out, sharding
from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.checkpoints import Checkpoint
from kerasgen.tuners.plan import Plan
from kerasgen.tuners.report import Validation
from kerasgen.tuners.settings import GradientTuner
from kerasgen.tuners.trainer import Trainer


class Objective:
    """The next token of each document. A tuner with another objective inherits from this.

    Args:
        settings: the tuner, before anything that it left open is decided.
    """

    trainer: type[Trainer] | Callable[..., Trainer] = Trainer
    texts = 1
    """Texts that stand at each place of a row."""

    def __init__(self, settings: GradientTuner) -> None:
        self.settings = settings

    def check(self, job: TuneJob) -> None:
        """Raise a `TuneArgumentError` if the documents are not what the objective needs, before any work."""

    def targets(self, train: EncodedDocuments) -> NDArray[np.int64]:
        """Return how many targets each document brings into a row, int64 `(documents,)`."""
        return np.maximum(train.lengths - 1, 0)

    def plan(self, job: TuneJob, settings: GradientTuner, share: sharding.Share) -> Plan:
        """Return the assignment of the documents to rows, batches and steps.

        Args:
            job: the job.
            settings: the tuner, everything decided.
            share: of this process.
        """
        assert settings.sequence_length is not None
        assert settings.packing != "auto"
        rows = pack(job.train, sequence_length=settings.sequence_length, packing=settings.packing)
        return Plan(encoded=job.train, rows=rows, **schedule_of(job, settings, share))

    def begin(
        self,
        trainer: Trainer,
        plan: Plan,
        job: TuneJob,
        settings: GradientTuner,
        saved: Checkpoint | None,
        share: sharding.Share,
    ) -> Mapping[str, Any]:
        """Compute what the whole run needs of the model as it came, and return what a resumed run must share of it.

        Args:
            trainer: the model, before a checkpoint is restored.
            plan: of the run.
            job: the job.
            settings: the tuner, everything decided.
            saved: the checkpoint that the run goes on from, or None.
            share: of this process.
        """
        return {}

    def validate(
        self, trainer: Trainer, plan: Plan, job: TuneJob, settings: GradientTuner
    ) -> Callable[[int], Validation]:
        """Return a function that scores the held-out documents after so many steps."""
        assert job.held_out is not None
        documents = held_out.sampled(job.held_out, settings.validation_tokens)
        return partial(_validation, trainer, job, settings, documents)

    def warnings(self, job: TuneJob) -> tuple[str, ...]:
        """Return what of the documents this objective leaves out."""
        rejected = job.train.rejected
        if rejected is None:
            return ()
        pairs = int((rejected.lengths > 0).sum())
        return (
            f"{pairs:,} documents have a worse answer beside the chosen one, and the chosen ones alone were learned; "
            "the dpo tuner learns from both",
        )


def schedule_of(job: TuneJob, settings: GradientTuner, share: sharding.Share) -> dict[str, Any]:
    """Return the fields that a plan takes from job and settings."""
    assert settings.batch_size is not None
    return {
        "batch_size": settings.batch_size,
        "batches_per_step": settings.gradient_accumulation_steps,
        "epochs": settings.epochs,
        "max_steps": settings.max_steps,
        "seed": job.seed,
        "shares": share.count,
        "share": share.index,
    }


def _validation(
    trainer: Trainer, job: TuneJob, settings: GradientTuner, documents: EncodedDocuments, step: int
) -> Validation:
    assert settings.sequence_length is not None
    assert settings.batch_size is not None
    scores = score(
        job.model,
        documents,
        sequence_length=settings.sequence_length,
        batch_size=settings.batch_size,
        losses=trainer,
    )
    return held_out.validation(step, scores)
