"""`full`: every weight of the model is tuned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.report import TuneReport
from kerasgen.tuners.settings import GradientTuner


@dataclass(frozen=True, kw_only=True)
class FullTuner(GradientTuner):
    """Tune every weight, with AdamW on the mean loss over real target tokens.

    The settings are `GradientTuner`'s.
    """

    def tune_job(self, job: TuneJob) -> TuneReport:
        """Tune every weight in place; see `FineTuner.tune`.

        Adapters that the model carries are merged first, and weights that are held as codes or in bfloat16 become
        float32: a step is often smaller than what bfloat16 can add to a weight.
        Layers that a person froze in a model that they handed over stay frozen.
        """
        from kerasgen.tuners import all_weights, training

        return training.run(job, self, prepare=partial(all_weights.unfreeze, job.model))
