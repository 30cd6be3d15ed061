"""The learning rate of each step. Imports Keras: import it late."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kerasgen.tuners.keras_schedules import KerasSchedule
from kerasgen.tuners.settings import GradientTuner


class WarmUpAndDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rises in a straight line over the warm-up, then stays, or falls to zero over the steps that are left.

    Args:
        learning_rate: the highest.
        steps: the number of steps of the whole run.
        warmup_steps: the number of steps of the rise.
        decay: `"linear"` (as Keras's `PolynomialDecay` to zero), `"cosine"` or `"constant"`.
        batches_per_step: batches whose gradients make one optimizer step.
    """

    def __init__(
        self, learning_rate: float, steps: int, warmup_steps: int, decay: str, batches_per_step: int = 1
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.batches_per_step = batches_per_step

    def __call__(self, step: Any) -> Any:
        """Return the learning rate after so many batches: a Keras optimizer counts those, accumulating or not."""
        return self.of_step(step // self.batches_per_step)

    def of_step(self, step: Any) -> Any:
        """Return the learning rate of the optimizer step counted from 0."""
        step = ops.cast(step, "float32")
        rise = (step + 1.0) / max(self.warmup_steps, 1)
        if self.decay == "constant":  # without the number of steps, runs of any length share what is compiled
            fall = ops.ones_like(step)
        else:
            gone = ops.clip((step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 0.0, 1.0)
            fall = 1.0 - gone if self.decay == "linear" else 0.5 * (1.0 + ops.cos(math.pi * gone))
        return self.learning_rate * ops.where(step < self.warmup_steps, rise, fall)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "decay": self.decay,
            "batches_per_step": self.batches_per_step,
        }


class OfEachStep(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A user's schedule, called with optimizer steps where Keras's optimizer counts batches.

    Args:
        schedule: the schedule of optimizer steps.
        batches_per_step: batches whose gradients make one.
    """

    def __init__(self, schedule: Any, batches_per_step: int = 1) -> None:
        super().__init__()
        self.schedule = schedule
        self.batches_per_step = batches_per_step

    def __call__(self, step: Any) -> Any:
        """Return the learning rate after so many batches."""
        return self.of_step(step // self.batches_per_step)

    def of_step(self, step: Any) -> Any:
        """Return the learning rate of the optimizer step counted from 0."""
        return self.schedule(step)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"schedule": self.schedule, "batches_per_step": self.batches_per_step}


def of_settings(settings: GradientTuner, *, steps: int, batches_per_step: int) -> WarmUpAndDecay | OfEachStep:
    """Return the schedule that the settings ask for.

    Args:
        settings: the tuner.
        steps: optimizer steps of the whole run.
        batches_per_step: batches whose gradients make one.

    Raises:
        TuneArgumentError: a schedule of Keras's can't be built again.
    """
    if isinstance(settings.learning_rate, KerasSchedule):
        return OfEachStep(settings.learning_rate.build(), batches_per_step)
    return WarmUpAndDecay(
        settings.learning_rate, steps, settings.warmup_steps, settings.schedule, batches_per_step=batches_per_step
    )
