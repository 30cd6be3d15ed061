"""`full`: every weight of the model is tuned."""

from __future__ import annotations

from dataclasses import dataclass

from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.base import TuneJob, TuneReport
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
        from kerasgen.models import quantized_base
        from kerasgen.models.live import is_live
        from kerasgen.tuners import adapters, training

        model = job.model

        def unfreeze() -> None:
            if adapters.current(model) is not None or quantized_base.scheme_of(model.network) is not None:
                adapters.widen(model)
            elif not is_live(model):
                model.network.trainable = True
            if not model.network.trainable_weights:
                raise TuneArgumentError(
                    "Every layer of the model is frozen, so there is nothing to tune. Set causal_lm.trainable = True, "
                    "or use the `lora` tuner."
                )

        return training.run(job, self, prepare=unfreeze)
