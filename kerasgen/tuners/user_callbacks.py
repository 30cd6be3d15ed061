"""Checks a user's Keras callbacks, and gives them the model in a usable state.

Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras.src.utils import is_default

from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.callbacks import PAIR_FIGURES
from kerasgen.tuners.metrics_logger import MetricsLogger

LOGS = ("loss", "step_loss", "step_accuracy")
VALIDATION_LOGS = ("val_loss", "val_bits_per_character")

_REFUSED = {
    "LearningRateScheduler": "The tuner's schedule sets the learning rate of each step. Pass it what you want: "
    "learning_rate=keras.optimizers.schedules.CosineDecay(…) or any other schedule, or schedule= and warmup_steps=.",
    "ReduceLROnPlateau": "The tuner's schedule sets the learning rate of each step, and falls by itself. Use patience= "
    "to stop at a plateau and go back to the best weights, or learning_rate= with a Keras schedule.",
    "BackupAndRestore": "A run keeps checkpoints by itself and goes on from them, optimizer and position in the data "
    "included: fit(directory=…, resume='auto').",
    "SwapEMAWeights": "It needs an optimizer that keeps a moving average, and the tuner's AdamW keeps none. Leave it "
    "out, or average checkpoints afterwards.",
}


def checked(callbacks: Any, *, has_held_out: bool = True, pairs: bool = False) -> list[Any]:
    """Return the callbacks as a list, once each is known to fit a run.

    Args:
        callbacks: Keras callbacks, or one.
        has_held_out: whether there are validations that they could watch.
        pairs: whether these tell of pairs too.

    Raises:
        TuneArgumentError: one of them is no callback, would work against the run, or watches what no run has.
    """
    alone = isinstance(callbacks, (keras.callbacks.Callback, MetricsLogger))
    listed = [callbacks] if alone else _listed(callbacks)
    validations = (*VALIDATION_LOGS, *(f"val_{name}" for name in PAIR_FIGURES if pairs))
    logs = (*LOGS, *validations) if has_held_out else LOGS
    loggers = [callback for callback in listed if isinstance(callback, MetricsLogger)]
    own = all(type(callback).__module__.startswith("keras.") for callback in listed if callback not in loggers)
    for callback in listed:
        if callback in loggers:
            continue
        if not isinstance(callback, keras.callbacks.Callback):
            hint = " It is a class; write it with its settings, in brackets." if isinstance(callback, type) else ""
            raise TuneArgumentError(
                f"callbacks takes instances of keras.callbacks.Callback.{hint} Received: {callback!r}. A function goes "
                "into keras.callbacks.LambdaCallback(on_epoch_end=…)."
            )
        for kind in type(callback).__mro__:
            if kind.__name__ in _REFUSED and kind.__module__.startswith("keras."):
                raise TuneArgumentError(f"{kind.__name__} doesn't fit a run. {_REFUSED[kind.__name__]}")
        monitor = getattr(callback, "monitor", None)
        watches = getattr(callback, "save_best_only", True)
        if own and watches and isinstance(monitor, str) and monitor not in logs:
            held_out = "" if has_held_out or monitor not in validations else " No text is held out; raise held_out."
            raise TuneArgumentError(
                f"{type(callback).__name__}(monitor={monitor!r}) would watch for what no run has. There are: "
                f"{', '.join(logs)}.{held_out}"
            )
    return listed


def _listed(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise TuneArgumentError(f"callbacks takes a list of keras.callbacks.Callback. Received: {callbacks!r}.")
    return list(callbacks)


class Guest(keras.callbacks.Callback):  # type: ignore[misc]
    """Wraps a user's callback so that it sees the model with its current weights.

    Args:
        callback: a person's.
        outside: makes it so meanwhile.
    """

    def __init__(self, callback: Any, outside: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.callback = callback
        self.outside = outside

    def set_params(self, params: Any) -> None:
        """Pass the run's parameters on."""
        super().set_params(params)
        self.callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Pass the model on."""
        super().set_model(model)
        self.callback.set_model(model)

    def _call(self, hook: str, *arguments: Any) -> None:
        with self.outside():
            getattr(self.callback, hook)(*arguments)

    def on_train_begin(self, logs: Any = None) -> None:
        """Pass it on."""
        self._call("on_train_begin", logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Pass it on."""
        self._call("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Pass it on."""
        self._call("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Pass it on."""
        self._call("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Pass the batch on if the callback listens to batches, because a call takes time."""
        if not (is_default(self.callback.on_train_batch_begin) and is_default(self.callback.on_batch_begin)):
            self._call("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Pass the batch on if the callback listens to batches, because a call takes time."""
        if not (is_default(self.callback.on_train_batch_end) and is_default(self.callback.on_batch_end)):
            self._call("on_train_batch_end", batch, logs)


def invited(callbacks: Sequence[Any], outside: Callable[[], AbstractContextManager[None]]) -> list[Any]:
    """Return Keras callbacks as guests, but for those that a run must know: its history and its progress bar."""
    known = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    every = [callback for callback in callbacks if not isinstance(callback, MetricsLogger)]
    return [callback if isinstance(callback, known) else Guest(callback, outside) for callback in every]
