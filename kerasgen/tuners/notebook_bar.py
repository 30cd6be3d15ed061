"""Shows a run's progress in a notebook: one output that is written over, so that a saved notebook holds its end alone.

Keras's own bar writes every step to standard output, which a notebook keeps. Imports Keras: import it late.
"""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any, Final

import keras

from kerasgen.tuners.callbacks import Watcher

_SECONDS: Final = 0.5  # between two updates, at least


def in_notebook() -> bool:
    """Say whether this process is the kernel of a notebook, which shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and shell.has_trait("kernel") and shell.kernel is not None


class NotebookBar(keras.callbacks.Callback):  # type: ignore[misc]
    """A bar with the step, the loss, the held-out figure and the time that is left.

    Args:
        watcher: knows the run.
    """

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self._watcher = watcher
        self._first = watcher.step
        self._handle: Any = None
        self._begun = self._shown = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show the step, if the last one was shown long enough ago."""
        if self._handle is None or time.monotonic() - self._shown >= _SECONDS:
            self._show()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show what the validation found."""
        self._show()

    def on_train_end(self, logs: Any = None) -> None:
        """Show the run's end."""
        self._show()

    def text(self) -> str:
        """Return what is shown beside the bar."""
        watcher = self._watcher
        parts = [f"step {watcher.step:,} of {watcher.steps:,}"]
        if watcher.seen.losses:
            parts.append(f"loss {watcher.seen.losses[-1]:.3f}")
        if watcher.seen.validations:
            parts.append(f"held out {watcher.seen.validations[-1].bits_per_character:.3f} bits per character")
        done, seconds = watcher.step - self._first, time.monotonic() - self._begun
        left = watcher.steps - watcher.step
        if done and left:
            parts.append(f"about {_duration(seconds / done * left)} left")
        return " · ".join(parts)

    def _show(self) -> None:
        from IPython.display import display

        self._shown = time.monotonic()
        said = self.text()
        bar = f'<progress max="{self._watcher.steps}" value="{self._watcher.step}"></progress> {escape(said)}'
        content = {"text/html": bar, "text/plain": said}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
