"""Hands a run's figures to a tracker's function: those of steps, of validations, and of the report.

Imports no Keras, so that a pipeline still chooses the backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerasgen.errors import TuneArgumentError
from kerasgen.keywords import Checked

if TYPE_CHECKING:
    from kerasgen.tuners.callbacks import Watcher
    from kerasgen.tuners.report import TuneReport, Validation

STEP_FIGURES = {"losses": "loss", "accuracies": "accuracy", "router_losses": "router_loss", "margins": "margin"}
"""The lists of a history, and the name that one of its numbers is logged by."""

_HELD = ("loss", "val_loss")


@dataclass(frozen=True, eq=False)
class MetricsLogger(metaclass=Checked):
    """Logs every step of a run, its validations and its report by a function such as `trackio.log` or `wandb.log`.

    It goes into `fit(callbacks=[…])` beside Keras's callbacks. Of a step it logs `loss`, `accuracy`, `learning_rate`,
    `tokens_per_second` (of this epoch, after its first execution), and what a mixture of experts or pairs have besides;
    of a validation its figures with `val_` in front; at the end the report's numbers with `report/` in front. The steps
    are those of the whole run: one that goes on logs from where it goes on.

    Args:
        log: called as `log(figures, step=step)` with a dict of numbers and an optimizer step, which never falls.
        every: optimizer steps between two that are logged; validations always are.
        last_step: the last step that the tracker holds, -1 for none, of a run that goes on. All steps after it are
            logged, those too that the checkpoint holds, and none up to it. A mapping says it for `"loss"` and
            `"val_loss"` apart, since a run may have been killed between both. None takes what the checkpoint holds as
            logged, so that steps after it, which a killed run had logged already, are logged twice.

    Raises:
        TuneArgumentError: `log` is no function, `every` no positive whole number, or `last_step` no step.
    """

    _argument_error = TuneArgumentError

    log: Callable[..., Any]
    every: int = 1
    last_step: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if not callable(self.log):
            raise TuneArgumentError(
                f"log must be a function of figures and a step, such as trackio.log or wandb.log. Received: "
                f"{self.log!r:.80}."
            )
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise TuneArgumentError(f"every must be a whole number of at least 1. Received: {self.every!r}.")
        held = self.last_step if isinstance(self.last_step, Mapping) else dict.fromkeys(_HELD, self.last_step)
        unknown = [name for name in held if name not in _HELD]
        if unknown or any(not _is_step(step) for step in held.values() if self.last_step is not None):
            raise TuneArgumentError(
                "last_step must be a step that the tracker holds, -1 for none, or a mapping of 'loss' and 'val_loss' "
                f"to such steps. Received: {self.last_step!r:.80}."
            )

    def following(self, watcher: Watcher) -> Following:
        """Return what logs one run.

        Args:
            watcher: of the run, which may have been resumed: what it has seen before is not logged again.
        """
        return Following(self, watcher)


class Following:
    """Logs one run.

    Args:
        logger: says by which function and how often.
        watcher: knows the run's figures.
    """

    def __init__(self, logger: MetricsLogger, watcher: Watcher) -> None:
        self._logger, self._watcher = logger, watcher
        self._checkpoint = len(watcher.seen.losses)
        held = logger.last_step
        self._last = held if isinstance(held, Mapping) else dict.fromkeys(_HELD, -1 if held is None else held)
        self._steps = self._checkpoint if held is None else 0
        self._validations = len(watcher.seen.validations) if held is None and self._checkpoint else 0

    def go_on(self) -> None:
        """Log what the run has seen since the last call."""
        watcher, seen = self._watcher, self._watcher.seen
        while self._steps < len(seen.losses):
            self._validate(until=self._steps)
            place, self._steps = self._steps, self._steps + 1
            if self._steps % self._logger.every or self._steps <= self._last.get("loss", -1):
                continue
            figures = {
                name: getattr(seen, of)[place] for of, name in STEP_FIGURES.items() if len(getattr(seen, of)) > place
            }
            figures["learning_rate"] = watcher.learning_rate(place)
            if watcher.tokens_per_second is not None and place >= self._checkpoint:
                figures["tokens_per_second"] = watcher.tokens_per_second
            self._log(figures, self._steps)
        self._validate(until=self._steps)

    def report(self, report: TuneReport) -> None:
        """Log the report's numbers, once everything else is."""
        self.go_on()
        figures = report.to_dict()
        self._log({f"report/{name}": figures[name] for name in figures if _is_number(figures[name])}, report.steps)

    def _validate(self, *, until: int) -> None:
        validations = self._watcher.seen.validations
        while self._validations < len(validations) and validations[self._validations].step <= until:
            validation = validations[self._validations]
            self._validations += 1
            if validation.step > self._last.get("val_loss", -1):
                self._log(figures_of(validation), validation.step)

    def _log(self, figures: Mapping[str, Any], step: int) -> None:
        self._logger.log(dict(figures), step=step)


def figures_of(validation: Validation) -> dict[str, float]:
    """Return the figures of a validation by the names that logs have for them."""
    names = ("loss", "bits_per_character", "pair_accuracy", "reward_accuracy", "margin", "divergence")
    figures = {name: getattr(validation, name) for name in names}
    return {f"val_{name}": value for name, value in figures.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= -1
