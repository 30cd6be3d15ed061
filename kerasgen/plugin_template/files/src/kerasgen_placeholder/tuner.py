"""A tuner that moves the biases alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kerasgen.tuners.base import TuneJob, TuneReport
from kerasgen.tuners.settings import GradientTuner


@dataclass(frozen=True, kw_only=True)
class PlaceholderTuner(GradientTuner):
    """Tune the biases alone (Ben Zaken et al. 2021, "BitFit"). The settings are those of `full`."""

    contract_version: ClassVar[int] = 1

    def tune_job(self, job: TuneJob) -> TuneReport:
        """Tune the job's model in place; see `FineTuner.tune`."""
        from kerasgen.tuners import training

        def freeze() -> None:
            for weight in job.model.network.weights:
                weight.trainable = weight.path.endswith("bias")

        return training.run(job, self, prepare=freeze)
