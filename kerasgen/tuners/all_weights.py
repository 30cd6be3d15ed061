"""Makes every weight of a model trainable. Imports Keras: import it late."""

from __future__ import annotations

from kerasgen.errors import TuneArgumentError
from kerasgen.models import quantized_base
from kerasgen.models.base import LanguageModel
from kerasgen.models.live import is_live
from kerasgen.tuners import adapters


def unfreeze(model: LanguageModel) -> None:
    """Let every weight be trained, but for layers that a person froze in a model that they handed over.

    Adapters that the model carries are merged first, and weights that are held as codes or in bfloat16 become float32:
    a step is often smaller than what bfloat16 can add to a weight.

    Raises:
        TuneArgumentError: a person froze all of them.
    """
    if adapters.current(model) is not None or quantized_base.scheme_of(model.network) is not None:
        adapters.widen(model)
    elif not is_live(model):
        model.network.trainable = True
    if not model.network.trainable_weights:
        raise TuneArgumentError(
            "Every layer of the model is frozen, so there is nothing to tune. Set causal_lm.trainable = True, "
            "or use the `lora` tuner."
        )
