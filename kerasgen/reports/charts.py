"""Lays out charts: data become paths, ticks and labels in the units of an SVG. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 36
POINTS: Final = 240
"""Points of a curve, at most: a longer one is shown by means over as many stretches."""
_CLIPPED = 0.02  # share of the highest single steps that may stand above a chart


@dataclass(frozen=True)
class Line:
    """A curve.

    Args:
        name: in words.
        kind: its class in the style sheet: `"steps"`, `"mean"` or `"held"`.
        x: of each point.
        y: of each point.
        error: of each point, drawn as a band on both sides; None where a point has none. Empty for no band.
        dots: mark the points.
    """

    name: str
    kind: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float | None] = ()
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart as its template draws it; lengths in the SVG's units.

    Args:
        title: in words.
        x_label: of the horizontal axis.
        x_ticks: places and labels.
        y_ticks: places and labels.
        lines: of each curve its class, name, path, the path of its band and its dots.
        bars: of a histogram: left edge, width, and for each part its class, top and height.
        legend: classes and names.
        hover: places from left to right and the lines of text to show there.
    """

    title: str
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[dict[str, Any]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    hover: list[tuple[float, list[str]]] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def thinned(values: Sequence[float], points: int = POINTS) -> tuple[list[int], list[float]]:
    """Return steps and values of at most so many points: of more, the mean of each stretch at its last step.

    Args:
        values: of the steps from 1 on.
        points: at most.
    """
    stretch = -(-len(values) // points)
    if stretch <= 1:
        return list(range(1, len(values) + 1)), list(values)
    ends = [*range(stretch, len(values), stretch), len(values)]
    parts = [values[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return ends, [sum(part) / len(part) for part in parts]


def smoothed(values: Sequence[float]) -> list[float]:
    """Return moving means over a twentieth of the steps, at least 3; empty for fewer than 12."""
    if len(values) < 12:
        return []
    width = max(3, len(values) // 20)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [(sums[n + 1] - sums[max(0, n + 1 - width)]) / min(n + 1, width) for n in range(len(values))]


def lines(title: str, x_label: str, curves: Sequence[Line], digits: int = 3) -> Chart:
    """Return the chart of some curves, of which one has a point at least.

    Args:
        title: in words.
        x_label: of the horizontal axis.
        curves: with finite numbers.
        digits: of a value on hover, behind the point.
    """
    curves = [curve for curve in curves if curve.x]
    x_low = min(min(curve.x) for curve in curves)
    x_high = max(max(curve.x) for curve in curves)
    y_low, y_high = _range(curves)
    x_scale, y_scale = _scale(x_low, x_high, LEFT, WIDTH - RIGHT), _scale(y_low, y_high, HEIGHT - BOTTOM, TOP)

    def path(xs: Sequence[float], ys: Sequence[float]) -> str:
        return "M" + "L".join(f"{x_scale(x):.1f} {y_scale(y):.1f}" for x, y in zip(xs, ys, strict=True))

    drawn = []
    for curve in curves:
        errors = [error or 0.0 for error in curve.error]
        band = ""
        if any(errors):
            upper = [y + error for y, error in zip(curve.y, errors, strict=True)]
            lower = [y - error for y, error in zip(curve.y, errors, strict=True)]
            band = path([*curve.x, *reversed(curve.x)], [*upper, *reversed(lower)]) + "Z"
        dots = [(x_scale(x), y_scale(y)) for x, y in zip(curve.x, curve.y, strict=True)] if curve.dots else []
        drawn.append(
            {"kind": curve.kind, "name": curve.name, "path": path(curve.x, curve.y), "band": band, "dots": dots}
        )
    return Chart(
        title,
        x_label,
        [(x_scale(tick), f"{tick:,.0f}") for tick in ticks(x_low, x_high, whole=True)],
        [(y_scale(tick), _short(tick, y_high - y_low)) for tick in ticks(y_low, y_high)],
        lines=drawn,
        legend=[(curve.kind, curve.name) for curve in curves],
        hover=_hover(x_label, curves, x_scale, digits),
    )


def _hover(x_label: str, curves: Sequence[Line], x_scale: Any, digits: int) -> list[tuple[float, list[str]]]:
    """Return what is said of each place that has a point."""
    places: dict[float, list[str]] = {}
    for curve in curves:
        errors = curve.error or [None] * len(curve.x)
        for x, y, error in zip(curve.x, curve.y, errors, strict=True):
            more = "" if error is None else f" ± {error:.{digits}f}"
            places.setdefault(x, []).append(f"{curve.name}: {y:.{digits}f}{more}")
    return [(round(x_scale(x), 1), [f"{x_label} {x:,.0f}", *said]) for x, said in sorted(places.items())]


def histogram(
    title: str, x_label: str, first: int, width: int, parts: Sequence[tuple[str, str, Sequence[int]]], documents: str
) -> Chart:
    """Return a histogram whose bars are parts on each other.

    Args:
        title: in words.
        x_label: of the horizontal axis.
        first: where the first bin begins.
        width: of a bin.
        parts: of each its class, its name and its counts.
        documents: the word for what is counted.
    """
    bins = len(parts[0][2])
    sums = [sum(counts[n] for _, _, counts in parts) for n in range(bins)]
    x_scale = _scale(first, first + bins * width, LEFT, WIDTH - RIGHT)
    y_scale = _scale(0, max(*sums, 1), HEIGHT - BOTTOM, TOP)
    bars, hover = [], []
    for n in range(bins):
        begin, base, stack = first + n * width, 0, []
        for kind, _, counts in parts:
            top = y_scale(base + counts[n])
            stack.append({"kind": kind, "top": top, "height": y_scale(base) - top})
            base += counts[n]
        left, right = x_scale(begin), x_scale(begin + width)
        gap = min(2.0, (right - left) / 4)
        bars.append({"left": left + gap / 2, "width": right - left - gap, "parts": stack})
        last = n == bins - 1
        span = f"{begin:,}" if width == 1 and not last else f"{begin:,} – {begin + width - 1:,}"
        said = [f"{x_label}: {f'{begin:,} …' if last else span}"]
        said += [f"{name}: {counts[n]:,} {documents}" for _, name, counts in parts]
        hover.append((round((left + right) / 2, 1), said))
    return Chart(
        title,
        x_label,
        [(x_scale(tick), f"{tick:,.0f}") for tick in ticks(first, first + bins * width, whole=True)],
        [(y_scale(tick), f"{tick:,.0f}") for tick in ticks(0, max(*sums, 1), whole=True)],
        bars=bars,
        legend=[(kind, name) for kind, name, _ in parts],
        hover=hover,
    )


def ticks(low: float, high: float, *, whole: bool = False, about: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, about so many, in steps of 1, 2, 2.5 or 5 times a power of ten.

    Args:
        low: the least.
        high: the greatest.
        whole: only whole numbers.
        about: how many.
    """
    if high <= low:
        return [low]
    exact = (high - low) / about
    power = 10.0 ** math.floor(math.log10(exact))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= exact * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    begin = math.ceil(low / step - 1e-9)
    return [n * step for n in range(begin, math.floor(high / step + 1e-9) + 1)]


def _range(curves: Sequence[Line]) -> tuple[float, float]:
    """Return the lowest and the highest value that is shown; single steps far above the others may be cut off."""
    values: list[float] = []
    for curve in curves:
        errors = [error or 0.0 for error in curve.error] or [0.0] * len(curve.y)
        ordered = sorted(curve.y)
        kept = ordered[: max(2, len(ordered) - int(len(ordered) * _CLIPPED))] if curve.kind == "steps" else ordered
        values += [kept[0], kept[-1]]
        values += [y + error for y, error in zip(curve.y, errors, strict=True) if error]
        values += [y - error for y, error in zip(curve.y, errors, strict=True) if error]
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - room if low < 0 else max(0.0, low - room), high + room


def _scale(low: float, high: float, begin: float, end: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: begin + (value - low) / span * (end - begin)


def _short(value: float, span: float) -> str:
    """Return a tick's label with as many digits as tell it from its neighbours."""
    digits = max(0, min(6, 1 - math.floor(math.log10(span or 1.0))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
