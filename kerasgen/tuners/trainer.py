"""The model as Keras's `fit` trains it, with its optimizer. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import keras
from keras import ops

from kerasgen.models.base import LanguageModel
from kerasgen.models.forward import TokenLosses, computing_in
from kerasgen.models.vocabulary import token_table
from kerasgen.tuners.optimizer import build as build_optimizer
from kerasgen.tuners.plan import Plan
from kerasgen.tuners.schedule import OfEachStep, WarmUpAndDecay, of_settings
from kerasgen.tuners.settings import GradientTuner


class LastValues(keras.metrics.Metric):  # type: ignore[misc]
    """The values of the last batches, one for each; Keras's own loss metric is a running mean.

    Args:
        name: of the metric.
        batches: how many are kept, those that Keras takes between two calls of its callbacks. For one, the result is a
            scalar, and else `(batches,)`, the last one last.
    """

    def __init__(self, name: str, batches: int = 1) -> None:
        super().__init__(name=name)
        self.batches = batches
        self.values = self.add_variable((batches,), initializer="zeros", name="values")

    def update_state(self, value: Any) -> None:
        """Put a batch's value last."""
        newest = ops.reshape(ops.cast(value, self.values.dtype), (1,))
        self.values.assign(ops.concatenate([self.values[1:], newest]))

    def result(self) -> Any:
        """Return the values."""
        return ops.convert_to_tensor(self.values)[0] if self.batches == 1 else ops.convert_to_tensor(self.values)


class Trainer(TokenLosses):
    """The model as `fit` trains it: the loss is the mean over the real targets of an optimizer step.

    Args:
        model: whose weights are shared.
        remat: as for `TokenLosses`.
        batches: that Keras takes between two calls of its callbacks.
    """

    def __init__(self, model: LanguageModel, *, remat: bool = False, batches: int = 1) -> None:
        super().__init__(model, remat=remat)
        self.step_loss = LastValues("step_loss", batches)
        self.step_accuracy = LastValues("step_accuracy", batches)
        self.step_router_loss = LastValues("step_router_loss", batches) if self.routes else None

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return the batch's loss while training, and otherwise the nats of each target."""
        return self.weighted(inputs, training=True) if training else super().call(inputs, training=False)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the batch's loss and keep it, and that of routers apart, which is added to it; see Keras's."""
        self.step_loss.update_state(y_pred.loss)
        self.step_accuracy.update_state(y_pred.accuracy)
        router_loss = getattr(y_pred, "router_loss", None)
        if router_loss is None:
            return y_pred.loss
        if self.step_router_loss is not None:
            self.step_router_loss.update_state(router_loss)
        return y_pred.loss + router_loss

    def save(self, filepath: Any, overwrite: bool = True, **settings: Any) -> None:
        """Save the task that is trained, as its own `save` does: a callback of Keras's finds it here."""
        self.causal_lm.save(filepath, overwrite=overwrite, **settings)

    def save_weights(self, filepath: Any, overwrite: bool = True, **settings: Any) -> None:
        """Save the weights of the task that is trained, as its own `save_weights` does."""
        self.causal_lm.save_weights(filepath, overwrite=overwrite, **settings)

    def load_weights(self, filepath: Any, **settings: Any) -> None:
        """Load weights into the task that is trained, as its own `load_weights` does."""
        self.causal_lm.load_weights(filepath, **settings)


def compiled(
    model: LanguageModel,
    plan: Plan,
    settings: GradientTuner,
    first_row: int,
    make: Callable[..., Trainer] = Trainer,
) -> tuple[Trainer, WarmUpAndDecay | OfEachStep]:
    """Return the model with its optimizer, built, so that its variables can be saved and restored, and its schedule.

    Args:
        model: whose weights are trained.
        plan: of the run.
        settings: the tuner, its precision decided.
        first_row: of the table of token embeddings, the first row that is trained.
        make: makes the trainer.
    """
    executed = settings.steps_per_execution
    batches = executed * plan.batches_per_step if executed > 1 else 1
    trainer = make(model, remat=settings.remat, batches=batches)
    schedule = of_settings(settings, steps=plan.steps, batches_per_step=plan.batches_per_step)
    first_rows = {}
    if first_row:
        table = token_table(model)
        first_rows = {n: first_row for n, variable in enumerate(trainer.trainable_variables) if variable is table}
    optimizer = build_optimizer(settings, schedule, first_rows=first_rows)
    # On a CPU TensorFlow's own kernels train faster than XLA's; JAX has only XLA.
    trainer.compile(optimizer=optimizer, jit_compile=keras.config.backend() == "jax", steps_per_execution=batches)
    optimizer.build(trainer.trainable_variables)
    return trainer, schedule


@contextmanager
def outside(trainer: Trainer, precision: str) -> Iterator[None]:
    """Give the model its current weights for a while, as outside of `fit`; on JAX they are elsewhere meanwhile.

    What changes in it is trained on.

    Args:
        trainer: that `fit` is training.
        precision: the dtype policy that the model came with.
    """
    if hasattr(trainer, "jax_state_sync"):
        trainer.jax_state_sync()
    if trainer.causal_lm.dtype_policy.name == precision:
        yield
        return
    with computing_in(trainer.causal_lm, precision):
        yield


@contextmanager
def weights_kept(trainer: Trainer) -> Iterator[None]:
    """Leave the model with weights when `fit` ends by an exception: on JAX it takes them away while it runs."""
    try:
        yield
    except BaseException:
        if hasattr(trainer, "jax_state_sync"):
            with suppress(RuntimeError):  # broken off within a step, there may be nothing to bring back
                trainer.jax_state_sync()
        raise
