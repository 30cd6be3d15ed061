"""The charts of a run: what its losses, held-out figures, accuracies and margins were, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kerasgen.evaluation.plotting import bits_per_character
from kerasgen.reports import charts
from kerasgen.reports.charts import Chart, Line
from kerasgen.tuners.report import TuneReport

_DOTS: Final = 60  # points of a curve that are marked, at most


def of_run(report: TuneReport, words: Mapping[str, str]) -> list[Chart]:
    """Return the charts of a run, those that it has figures for."""
    pairs = bool(report.margins)
    found = []
    bits = [] if pairs or not report.characters else _steps(bits_per_character(report), words)
    held_bits = _held(report, "bits_per_character", words["better" if pairs else "held_out"], error="standard_error")
    if bits or held_bits:
        found.append(charts.lines(words["bits"], words["step"], [*bits, *held_bits]))
    loss = _steps(report.losses, words) + _held(report, "loss", words["held_out"])
    if loss:
        found.append(charts.lines(words["pair_loss" if pairs else "loss"], words["step"], loss))
    if pairs:
        margin = _steps(report.margins, words) + _held(report, "margin", words["held_out"])
        found.append(charts.lines(words["margin"], words["step"], margin))
    right = _steps(report.accuracies, words)
    if right:
        if pairs:
            right += _held(report, "reward_accuracy", words["held_out"])
        found.append(charts.lines(words["pair_share" if pairs else "accuracy"], words["step"], right))
    return found


def thinning(report: TuneReport) -> int:
    """Return over how many steps each point of a curve is a mean."""
    return max(1, -(-len(report.losses) // charts.POINTS))


def lengths(counts: Mapping[str, Any], words: Mapping[str, str]) -> Chart:
    """Return the histogram of a corpus's lengths, as `kerasgen.tokens.corpus_statistics.lengths` counted them."""
    parts: list[tuple[str, str, Sequence[int]]] = [("train", words["training"], counts["train"])]
    if any(counts["held_out"]):
        parts.append(("held", words["held_out"], counts["held_out"]))
    return charts.histogram(
        words["lengths"], words["length"], counts["first"], counts["width"], parts, words["documents"]
    )


def _steps(values: Sequence[float], words: Mapping[str, str]) -> list[Line]:
    """Return the curve of the single steps, and that of their moving mean; nothing where there are none."""
    if not values or not all(map(math.isfinite, values)):
        return []
    steps, shown = charts.thinned(values)
    found = [Line(words["training"], "steps" if len(values) >= 12 else "mean", steps, shown)]
    means = charts.smoothed(values)
    if means:
        found.append(Line(words["training_mean"], "mean", steps, [means[step - 1] for step in steps]))
    return found


def _held(report: TuneReport, name: str, said: str, *, error: str | None = None) -> list[Line]:
    """Return the curve of a figure of the validations; nothing where they have none."""
    told = [each for each in report.validations if getattr(each, name) is not None]
    told = [each for each in told if math.isfinite(getattr(each, name))]
    if not told:
        return []
    stretch = -(-len(told) // charts.POINTS)
    told = [*told[:-1:stretch], told[-1]]  # of many, some, the first and the last among them
    errors = [] if error is None else [_finite(getattr(each, error)) for each in told]
    steps, values = [each.step for each in told], [getattr(each, name) for each in told]
    return [Line(said, "held", steps, values, errors, dots=len(told) <= _DOTS)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
