"""The optimizer of a run: AdamW with its schedule, clipping and accumulation. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.schedule import OfEachStep, WarmUpAndDecay
from kerasgen.tuners.settings import GradientTuner


class AdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """Keras's, with gradients that are whole before their norm is taken, and on TensorFlow with its fused update.

    On TensorFlow the gradient of an embedding comes as slices, several for one row. Keras 3.15 squares each before
    they are added up, so `global_clipnorm` would clip by another norm there than on JAX, or than when accumulating.
    Keras's update passes over the memory of each variable a dozen times on TensorFlow; `ResourceApplyAdam` does the
    same arithmetic in one pass. XLA fuses it by itself.
    """

    _powers: tuple[Any, Any] = (None, None)
    first_rows: Mapping[int, int] = {}
    """Of variables by their place, the first row that is updated; a row before it keeps its weights and moments."""

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the next step, by the run's schedule."""
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        raise TuneArgumentError(
            "The run's schedule sets the learning rate of each step, so a callback can't. Pass what you want to the "
            "tuner: learning_rate= with a keras.optimizers.schedules.LearningRateSchedule."
        )

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update the variables; see Keras's."""
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        whole = [_whole(gradient, variable) for gradient, variable in zip(grads, variables, strict=True)]
        for place, first in self.first_rows.items():
            rows = ops.arange(whole[place].shape[0]) >= first
            whole[place] = ops.where(ops.expand_dims(rows, 1), whole[place], ops.zeros_like(whole[place]))
        super().apply(whole, trainable_variables)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        step = ops.cast(self.iterations + 1, "float32")
        self._powers = ops.power(float(self.beta_1), step), ops.power(float(self.beta_2), step)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        if keras.config.backend() != "tensorflow" or not self.global_clipnorm:
            clipped: Sequence[Any] = super()._clip_gradients(grads)
            return clipped
        import tensorflow as tf

        # The same norm, without the squares in memory.
        clipped, _ = tf.clip_by_global_norm(grads, self.global_clipnorm)
        return clipped

    def _apply_weight_decay(self, variables: Any) -> None:
        if self.weight_decay:  # a decay of 0 would visit every kernel for nothing
            super()._apply_weight_decay(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its moments; see Keras's."""
        if keras.config.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=self._powers[0],
            beta2_power=self._powers[1],
            lr=ops.cast(learning_rate, "float32"),
            beta1=float(self.beta_1),
            beta2=float(self.beta_2),
            epsilon=float(self.epsilon),
            grad=tf.convert_to_tensor(gradient),
        )


def _handle(variable: Any) -> Any:
    """What TensorFlow's own variable is known by; Keras hands over its variables or TensorFlow's."""
    return variable.handle if hasattr(variable, "handle") else variable.value.handle


def _whole(gradient: Any, variable: Any) -> Any:
    if hasattr(gradient, "dense_shape"):  # TensorFlow's IndexedSlices
        return ops.segment_sum(gradient.values, gradient.indices, num_segments=variable.shape[0])
    return gradient


def build(
    settings: GradientTuner, schedule: WarmUpAndDecay | OfEachStep, *, first_rows: Mapping[int, int] | None = None
) -> Any:
    """Return the optimizer that the settings ask for, not yet built on variables.

    Args:
        settings: the tuner.
        schedule: the learning rate of each batch.
        first_rows: of variables by their place, the first row that is updated.
    """
    accumulate = settings.gradient_accumulation_steps
    optimizer = AdamW(
        schedule,
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    optimizer.first_rows = dict(first_rows or {})
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "scale", "sinks", "embeddings"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if settings.precision == "mixed_float16" else optimizer


def skipped(optimizer: Any, batches: int) -> int:
    """Return how many of the batches so far changed no weight, because their gradients overflowed float16.

    Args:
        optimizer: what `build` returned.
        batches: trained on so far.
    """
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return 0
    return batches - int(ops.convert_to_numpy(optimizer.inner_optimizer.iterations))
