"""Callbacks of a run: they keep losses, write checkpoints, score held-out documents and generate texts.

Keras callbacks. Imports Keras: import it late.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasgen.errors import NonFiniteLossError
from kerasgen.models import tensorflow_views
from kerasgen.terminal import show
from kerasgen.tuners import optimizer
from kerasgen.tuners.metrics_logger import Following
from kerasgen.tuners.report import TextSample, Validation

STEP_LOGS = ("step_loss", "step_accuracy")
FURTHER_LOGS = {"step_router_loss": "router_losses", "step_margin": "margins"}
"""Only of a mixture of experts, and of pairs: where a history keeps each."""
PAIR_FIGURES = ("pair_accuracy", "reward_accuracy", "margin", "divergence")
"""What a validation says of pairs alone."""
RUN_LOGS = ("learning_rate", "tokens_per_second")
"""What the logs say besides, for trackers."""
MOST_UNREAD = 16
"""Executions whose losses an accelerator may be ahead of the host: to read each, the host would wait for its end."""


@dataclass
class History:
    """History of a run so far; a checkpoint holds it.

    Args:
        losses: mean nats per target token of each optimizer step.
        validations: on held-out documents.
        samples: texts written on the way.
        accuracies: share of the targets of each optimizer step that were the likeliest token.
        router_losses: what unbalanced routers cost in each optimizer step, of a mixture of experts.
        margins: of the rewards of each optimizer step, of pairs.
        best_loss: the lowest validation loss, for early stopping.
        waited: validations since then.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    samples: list[TextSample] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    router_losses: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    best_loss: float = math.inf
    waited: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the history as JSON can hold it."""
        return asdict(self) | {"best_loss": self.best_loss if math.isfinite(self.best_loss) else None}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> History:
        """Return the history that `to_dict` described."""
        return cls(
            losses=list(saved["losses"]),
            validations=[Validation(**entry) for entry in saved["validations"]],
            samples=[TextSample(**entry) for entry in saved["samples"]],
            accuracies=list(saved.get("accuracies", ())),  # 0.1.0 counted none
            router_losses=list(saved.get("router_losses", ())),
            margins=list(saved.get("margins", ())),
            best_loss=math.inf if saved["best_loss"] is None else saved["best_loss"],
            waited=saved["waited"],
        )


class Unshown(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes the figures of single steps out of the logs when all callbacks have seen them; Keras's bar comes last."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take them from a batch's logs."""
        for name in (*STEP_LOGS, *FURTHER_LOGS, *RUN_LOGS):
            (logs or {}).pop(name, None)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take them from an epoch's logs."""
        self.on_train_batch_end(epoch, logs)


class Watcher(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the run's history and does what is due between two optimizer steps.

    Args:
        history: filled while the run goes on.
        batches_per_step: batches whose gradients make one optimizer step.
        steps: of the whole run.
        learning_rate: of a step counted from 0.
        save: begins to write a checkpoint of the model as it is and returns the folder that it will have, or None, with
            nothing written, where a number of its state is not finite.
        check: raises what writing checkpoints ran into since.
        validate: scores the held-out documents, or None if there are none.
        keep_best: called when a validation is the best so far, or None without early stopping.
        patience: validations without a lower loss after which the run stops, or None.
        sample: writes a text, or None.
        is_finite: says whether every number of the run's state is one.
        digest: returns digits that change with any weight, where a person's callbacks may change some; else a constant.
        watched: whether a person's callbacks read the logs.
        unread: executions whose losses may stay on the device while the next ones are begun. They are read before
            anything is due, and a loss that is not finite stops the run so much later, before a checkpoint is written.
        show: print the texts.
        validate_every: optimizer steps, or None for the ends of epochs.
        checkpoint_every: optimizer steps, or None for the ends of epochs.
        sample_every: optimizer steps, or None.
        after_first_step: called once, when the first step of this process has ended.
    """

    def __init__(
        self,
        history: History,
        *,
        batches_per_step: int,
        steps: int,
        learning_rate: Callable[[int], float],
        save: Callable[[], Path | None],
        check: Callable[[], None],
        validate: Callable[[], Validation] | None,
        keep_best: Callable[[], None] | None,
        patience: int | None,
        sample: Callable[[], str] | None,
        is_finite: Callable[[], bool],
        digest: Callable[[], str],
        watched: bool,
        unread: int = 0,
        show: bool,
        validate_every: int | None,
        checkpoint_every: int | None,
        sample_every: int | None,
        after_first_step: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.seen = history
        self.batches_per_step = batches_per_step
        self.steps = steps
        self.learning_rate = learning_rate
        self.save = save
        self.check = check
        self.validate = validate
        self.keep_best = keep_best
        self.patience = patience
        self.sample = sample
        self.is_finite = is_finite
        self.digest = digest
        self._validated = self._saved = ""
        self.watched = watched
        self.unread = unread
        self.show = show
        self.validate_every = validate_every
        self.checkpoint_every = checkpoint_every
        self.sample_every = sample_every
        self.after_first_step = after_first_step
        self.interrupted = False
        # A run that stopped early before its checkpoint was written stays stopped.
        self.exhausted = patience is not None and history.waited >= patience
        self.checkpoint: Path | None = None
        self.aside = 0.0
        self.first_step_seconds = 0.0
        self.tokens_per_second: float | None = None
        """Of this epoch, after its first execution; a step counts as the epoch's mean one."""
        self._tokens_per_step = 0.0
        self._clock: tuple[int, float] | None = None
        self.following: list[Following] = []
        """What logs the run's figures."""
        self._begun_at = 0.0
        self._first_batch = 0
        self._waiting: list[tuple[int, list[Any]]] = []
        self._names: list[str] = []
        self._saved_at = -1
        self._window: list[float] = []
        self._right: list[float] = []
        self._further: dict[str, list[float]] = {name: [] for name in FURTHER_LOGS}

    @property
    def step(self) -> int:
        """Optimizer steps finished in the whole run, or begun where their losses stay on the device."""
        waiting = sum(batches for batches, _ in self._waiting)
        return len(self.seen.losses) + (len(self._window) + waiting) // self.batches_per_step

    def begin_epoch(self, tokens_per_step: float) -> None:
        """Measure anew how fast the run is.

        Args:
            tokens_per_step: of the epoch's steps, their mean.
        """
        self._tokens_per_step, self._clock, self.tokens_per_second = tokens_per_step, None, None

    def _measure_speed(self) -> None:
        now = time.perf_counter() - self.aside
        if self._clock is None:
            self._clock = self.step, now
            return
        steps, seconds = self.step - self._clock[0], now - self._clock[1]
        self.tokens_per_second = steps * self._tokens_per_step / seconds if seconds > 0 else None

    def _run_logs(self) -> dict[str, float]:
        """Return what the logs say of the run besides losses."""
        logs = {"learning_rate": self.learning_rate(max(self.step - 1, 0))}
        if self.tokens_per_second is not None:
            logs["tokens_per_second"] = self.tokens_per_second
        return logs

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remember when the first execution began, and with which batch this one does."""
        tensorflow_views.let_go()  # what a preview of texts held, or TensorFlow would write into new memory
        self._begun_at = self._begun_at or time.perf_counter()
        self._first_batch = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the losses; at the end of an optimizer step do what is due. Later callbacks see the last batch's."""
        assert logs is not None
        batches = min(batch + 1, self.params["steps"]) - self._first_batch  # an epoch's last execution may be short
        names = [name for name in (*STEP_LOGS, *FURTHER_LOGS) if name in logs]
        before = self.step
        self._names = names
        self._waiting.append((batches, [logs[name] for name in names]))
        for values in self._waiting[-1][1]:
            getattr(values, "copy_to_host_async", int)()
        # The first one is waited for, which tells what compiling took.
        newest = self._read(keep=self.unread if self.first_step_seconds else 0)
        if newest is not None and not self._waiting:
            logs.update(dict(zip(names, newest, strict=True)))
        if self.step == before:
            if self.watched:
                logs.update(self._run_logs())
            return
        self._measure_speed()
        if self.watched:
            logs.update(self._run_logs())
        if not self.first_step_seconds:
            self.first_step_seconds = time.perf_counter() - self._begun_at
            self.after_first_step()
        begin = time.perf_counter()
        self._between_steps(before)
        for following in self.following:
            following.go_on()
        self.aside += time.perf_counter() - begin

    def _read(self, *, keep: int = 0) -> list[float] | None:
        """Keep what was waiting but for the last `keep` executions, and return the last batch's of what was read."""
        newest = None
        while len(self._waiting) > keep:
            batches, logged = self._waiting.pop(0)
            values = [np.atleast_1d(np.asarray(of))[-batches:] for of in logged]
            for of_batch in zip(*values, strict=True):
                newest = list(map(float, of_batch))
                self._keep(*newest)
        return newest

    def _keep(self, loss: float, accuracy: float, *further: float) -> None:
        if not math.isfinite(loss):
            self._attach()
            raise self._diverged(f"The loss became {loss}", len(self.seen.losses) + 1)
        self._window.append(loss)
        self._right.append(accuracy)
        for name, value in zip(self._names[len(STEP_LOGS) :], further, strict=True):
            self._further[name].append(value)
        if len(self._window) < self.batches_per_step:
            return
        self.seen.losses.append(sum(self._window) / len(self._window))
        self.seen.accuracies.append(sum(self._right) / len(self._right))
        for name, values in self._further.items():
            if values:
                getattr(self.seen, FURTHER_LOGS[name]).append(sum(values) / len(values))
        for values in (self._window, self._right, *self._further.values()):
            values.clear()

    def _diverged(self, what: str, step: int) -> NonFiniteLossError:
        """Return the error for a step whose result is not finite; no checkpoint was written of it."""
        rate = self.learning_rate(max(step - 1, 0))
        last_checkpoint = f" The last checkpoint, from before, is {self.checkpoint}." if self.checkpoint else ""
        wider = ""
        if isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer):
            wider = " float16 holds nothing above 65,504: precision='mixed_bfloat16' or 'float32' may be all it takes."
        return NonFiniteLossError(
            f"{what} at step {step}, at a learning rate of {rate:.3g}. Lower the learning rate, add warmup_steps, or "
            f"lower clip_norm.{wider}{last_checkpoint}",
            step=step,
            learning_rate=rate,
            checkpoint=None if self.checkpoint is None else str(self.checkpoint),
        )

    def _between_steps(self, before: int) -> None:
        def due(every: int | None) -> bool:
            return every is not None and self.step // every > before // every

        self.check()
        if self.interrupted or any(map(due, (self.validate_every, self.sample_every, self.checkpoint_every))):
            self._read()
        if due(self.validate_every):
            self.validate_now()
        if due(self.sample_every) and self.sample is not None:
            self._attach()
            self.seen.samples.append(TextSample(self.step, self.sample()))
            if self.show:
                show(f"\nstep {self.step}: {self.seen.samples[-1].text}")
        if due(self.checkpoint_every) or self.interrupted:
            self._save()
        if self.interrupted:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate and save if that is due at the ends of epochs; later callbacks see `val_loss` in the logs."""
        self._read()
        begin = time.perf_counter()
        if self.validate_every is None and not self.interrupted:
            self.validate_now()
        if logs is not None:
            logs.update(
                {
                    name: float(np.atleast_1d(np.asarray(logs[name]))[-1])
                    for name in (*STEP_LOGS, *FURTHER_LOGS)
                    if name in logs
                }
            )
        if logs is not None and self.watched:
            logs.update(self._run_logs())
        if logs is not None and self.seen.validations:
            latest = self.seen.validations[-1]
            if latest.step != self.step and self.watched and self.validate is not None and not self.interrupted:
                latest = (
                    self.measure()
                )  # a callback that keeps the best weights judges these, not those of a step before
            logs["val_loss"] = latest.loss
            logs["val_bits_per_character"] = latest.bits_per_character
            for name in PAIR_FIGURES:
                if getattr(latest, name) is not None:
                    logs[f"val_{name}"] = getattr(latest, name)
        if self.checkpoint_every is None and not self._window:  # a callback may have stopped between two steps
            self._save()
        for following in self.following:
            following.go_on()
        self.aside += time.perf_counter() - begin

    def _attach(self) -> None:
        """Bring the model's weights up to date: on JAX they are elsewhere while `fit` runs, until a callback asks."""
        _ = self.model

    def _save(self) -> None:
        if self._saved_at != self.step:
            self._attach()
            if self.step == self.steps:
                self._require_change()
            written = self.save()
            if written is None:
                raise self._not_finite()
            self.checkpoint = written
            self._saved_at, self._saved = self.step, self.digest()

    def save_again(self) -> None:
        """Write the checkpoint of this step anew if there is one: the weights are others since."""
        if self._saved_at == self.step:
            self._saved_at = -1
            self._save()

    def _not_finite(self) -> NonFiniteLossError:
        return self._diverged("The weights or what the optimizer keeps of them became NaN or infinite", self.step)

    def _require_change(self) -> None:
        """Raise if no step of the run changed a weight."""
        if self.step and self.skipped_batches == self.step * self.batches_per_step:
            rate = self.learning_rate(self.step - 1)
            raise NonFiniteLossError(
                f"Each gradient of the run's {self.step} steps overflowed float16, so no weight was changed. Tune with "
                "precision='mixed_bfloat16' or 'float32', or longer: each overflow halves the scale of what follows.",
                step=self.step,
                learning_rate=rate,
            )

    @property
    def skipped_batches(self) -> int:
        """Batches of the whole run that changed no weight, because their gradients overflowed float16."""
        return optimizer.skipped(self.model.optimizer, self.step * self.batches_per_step)

    def measure(self) -> Validation:
        """Score the held-out documents.

        Raises:
            NonFiniteLossError: what they cost is no number.
        """
        assert self.validate is not None
        self._attach()
        validation = self.validate()
        if math.isfinite(validation.loss):
            return validation
        if self.step:
            raise self._diverged(f"The held-out loss became {validation.loss}", self.step)
        raise NonFiniteLossError(
            f"The held-out loss is {validation.loss} before the first step: the model's weights hold NaN or are too "
            "large. Load the model anew, or another one; precision='float32' tells whether rounding is at fault.",
            step=0,
            learning_rate=self.learning_rate(0),
        )

    def conclude(self) -> None:
        """Validate the weights that the run ends with, and let the last checkpoint be theirs.

        A callback may have changed them after its last step.
        """
        weights = self.digest()
        at_this_step = self.seen.validations and self.seen.validations[-1].step == self.step
        if self._saved not in ("", weights):
            self.save_again()
        if self.validate is not None and at_this_step and self._validated not in ("", weights):
            self.seen.validations.append(self.measure())
        self.validate_now()
        if self._saved_at != self.step and not self.is_finite():  # what was saved was finite
            raise self._not_finite()
        self._require_change()

    def validate_now(self) -> None:
        """Score the held-out documents, once for each step; stop the run if that is the lesson."""
        if self.validate is None or (self.seen.validations and self.seen.validations[-1].step == self.step):
            return
        validation = self.measure()
        self.seen.validations.append(validation)
        self._validated = self.digest()
        if self.patience is None or self.keep_best is None:
            return
        if validation.loss < self.seen.best_loss:
            self.seen.best_loss, self.seen.waited = validation.loss, 0
            self.keep_best()
        else:
            self.seen.waited += 1
            if self.seen.waited >= self.patience:
                self.exhausted = True
                self.model.stop_training = True


class OneRun(keras.callbacks.CallbackList):  # type: ignore[misc]
    """Callbacks that see one run, although Keras's `fit` is called once for each epoch.

    An epoch that a resumed run begins in its middle is shorter than the others, which one call of `fit` can't say.
    """

    _begun = False
    reads_logs = True
    """Whether Keras turns a batch's logs into numbers, for which it waits until the batch is computed."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Pass a batch's end on."""
        if self.reads_logs:
            super().on_train_batch_end(batch, logs)
            return
        logs = dict(logs or {})
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_train_begin(self, logs: Any = None) -> None:
        """Pass the run's beginning on, once."""
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Keep the end of one call of `fit` to itself."""

    def finish(self, logs: Any = None) -> None:
        """Pass the run's end on, if it began."""
        if self._begun:
            super().on_train_end(logs)


@contextmanager
def interruptible(watcher: Watcher) -> Iterator[None]:
    """Let Ctrl-C end the run after the step that is under way, with a checkpoint; a second one ends it at once.

    Outside the main thread, where Python delivers no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: Any) -> None:
        if watcher.interrupted:
            raise KeyboardInterrupt
        watcher.interrupted = True
        said = "\nStopping after this step, with a checkpoint; press Ctrl-C again to stop at once."
        for stream in (sys.stdout, sys.stderr):
            # The signal may have come within a write that waits for its reader, which takes no other from here.
            with suppress(RuntimeError):
                print(said, file=stream, flush=True)
                return

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
