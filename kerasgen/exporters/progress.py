"""Shows on standard error which step of an export is being done, and which comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kerasgen.terminal import size_for_bars

_BAR: ContextVar[_Bar | None] = ContextVar("bar", default=None)


class _Bar:
    """A bar with a place for each step.

    Args:
        bar: `tqdm`'s.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._steps: list[str] = []
        self._at = 0

    def plan(self, steps: tuple[str, ...]) -> None:
        """Add steps before those that are planned and not yet begun."""
        self._steps[self._at : self._at] = steps
        self._bar.total = len(self._steps)

    def begin(self, step: str) -> None:
        """Show a step as the one that is being done, and those before it as done; one that nobody planned is added."""
        if step not in self._steps[max(self._at - 1, 0) :]:
            self.plan((step,))
        place = self._steps.index(step, max(self._at - 1, 0))
        self._bar.n, self._at = place, place + 1
        following = self._steps[self._at : self._at + 1]
        self._bar.set_description_str(step + "".join(f" (then: {next_step})" for next_step in following))

    def finish(self) -> None:
        """Show all steps as done."""
        self._bar.n = len(self._steps)
        self._bar.set_description_str("exported")


@contextmanager
def shown(progress: bool | None) -> Iterator[None]:
    """Show the steps of the exports within.

    Args:
        progress: whether to; None does where standard error is a terminal.
    """
    from tqdm.auto import tqdm

    form = "{desc}: {n_fmt} of {total_fmt} steps, {elapsed}"
    disable = None if progress is None else not progress
    with tqdm(bar_format=form, total=0, disable=disable, leave=False, **size_for_bars()) as bar:
        bar_of_steps = _Bar(bar)
        token = _BAR.set(bar_of_steps)
        try:
            yield
            bar_of_steps.finish()
        finally:
            _BAR.reset(token)


def plan(*steps: str) -> None:
    """Say which steps an exporter will take, in their order, unless nobody looks; an exporter within adds its own."""
    bar = _BAR.get()
    if bar is not None:
        bar.plan(steps)


def begin(step: str) -> None:
    """Say which of the planned steps begins; those before it are done."""
    bar = _BAR.get()
    if bar is not None:
        bar.begin(step)
