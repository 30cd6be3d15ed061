"""A CSV file of a run's optimizer steps. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kerasgen.errors import TuneError
from kerasgen.tuners import checkpoints
from kerasgen.tuners.callbacks import Watcher


class StepLog(keras.callbacks.Callback):  # type: ignore[misc]
    """A line of a CSV file for each optimizer step: step, epoch (both from 1), loss and learning rate.

    A resumed run's file begins with what its checkpoint remembers, so each step stands there once.

    Args:
        path: of the file.
        watcher: comes before this one among the callbacks.
        steps_per_epoch: optimizer steps of a whole pass.
    """

    def __init__(self, path: Path, watcher: Watcher, *, steps_per_epoch: int) -> None:
        super().__init__()
        self.path = path
        self.watcher = watcher
        self.steps_per_epoch = steps_per_epoch
        self._written = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin the file, with the steps before."""
        lines = "step,epoch,loss,learning_rate\n" + self._lines()
        checkpoints.write_bytes(self.path, lines.encode())

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the step that the batch finished, if it did."""
        self._write()

    def _write(self) -> None:
        lines = self._lines()
        if not lines:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as cause:
            kept = f" The last checkpoint is {self.watcher.checkpoint}." if self.watcher.checkpoint else ""
            raise TuneError(
                f"{self.path} can't be written: {cause}.{kept} Make room and fit again, or ask for csv=False.",
                step=self.watcher.step,
            ) from cause

    def _lines(self) -> str:
        """The lines of the steps that are not in the file yet."""
        losses, first = self.watcher.seen.losses, self._written
        self._written = len(losses)
        return "".join(
            f"{step + 1},{step // self.steps_per_epoch + 1},{losses[step]!r},{self.watcher.learning_rate(step)!r}\n"
            for step in range(first, len(losses))
        )
