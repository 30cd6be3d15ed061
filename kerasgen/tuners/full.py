"""`full`: every weight of the model is tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.settings import GradientTuner

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.encoding import EncodedDocuments


@dataclass(frozen=True, kw_only=True)
class FullTuner(GradientTuner):
    """Tune every weight, with AdamW on the mean loss over real target tokens.

    The settings are `GradientTuner`'s.
    """

    def tune(
        self,
        model: LanguageModel,
        train: EncodedDocuments,
        held_out: EncodedDocuments | None = None,
        *,
        seed: int,
        directory: Path,
        resume: bool | Literal["auto"] = False,
        callbacks: Sequence[Any] = (),
        sample: Callable[[], str] | None = None,
        verbose: int = 1,
    ) -> TuneReport:
        """Tune every weight in place; see `FineTuner.tune`. Adapters that the model carries are merged first.

        Layers that a person froze in a model that they handed over stay frozen.
        """
        from kerasgen.models.live import is_live
        from kerasgen.tuners import adapters, training

        def unfreeze() -> None:
            if adapters.current(model) is not None:
                adapters.merge(model)
            elif not is_live(model):
                model.causal_lm.trainable = True
            if not model.causal_lm.trainable_weights:
                raise TuneArgumentError(
                    "Every layer of the model is frozen, so there is nothing to tune. Set causal_lm.trainable = True, "
                    "or use the `lora` tuner."
                )

        return training.run(
            model,
            train,
            held_out,
            settings=self,
            prepare=unfreeze,
            seed=seed,
            directory=directory,
            resume=resume,
            callbacks=callbacks,
            sample=sample,
            verbose=verbose,
        )
