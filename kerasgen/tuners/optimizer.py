"""The optimizer of a run: AdamW with its schedule, clipping and accumulation. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasgen.tuners.schedule import WarmUpAndDecay
from kerasgen.tuners.settings import GradientTuner


class AdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """Keras's, with gradients that are whole before their norm is taken.

    On TensorFlow the gradient of an embedding comes as slices, several for one row. Keras 3.15 squares each before
    they are added up, so `global_clipnorm` would clip by another norm there than on JAX, or than when accumulating.
    """

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update the variables; see Keras's."""
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        whole = [_whole(gradient, variable) for gradient, variable in zip(grads, variables, strict=True)]
        super().apply(whole, trainable_variables)


def _whole(gradient: Any, variable: Any) -> Any:
    if hasattr(gradient, "dense_shape"):  # TensorFlow's IndexedSlices
        return ops.segment_sum(gradient.values, gradient.indices, num_segments=variable.shape[0])
    return gradient


def build(settings: GradientTuner, schedule: WarmUpAndDecay) -> Any:
    """Return the optimizer that the settings ask for, not yet built on variables."""
    accumulate = settings.gradient_accumulation_steps
    optimizer = AdamW(
        schedule,
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "embeddings"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if settings.precision == "mixed_float16" else optimizer
