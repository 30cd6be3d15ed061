"""Writes figures as text: what a person reads, and beside it the exact value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_SPELLED: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


@dataclass(frozen=True)
class Cell:
    """A figure of a table.

    Args:
        text: what is read.
        value: exactly.
    """

    text: str
    value: float


@dataclass(frozen=True)
class Figure:
    """A figure that stands out.

    Args:
        name: of what, in words.
        text: what is read.
        value: exactly.
        error: of the figure, as text; empty for none.
        note: a second line; empty for none.
    """

    name: str
    text: str
    value: float
    error: str = ""
    note: str = ""


def number(value: float, digits: int) -> str:
    """Return a number with this many decimals; a sign for an infinite one, a dash for NaN."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else _not_finite(value)


def brief(value: float) -> str:
    """Return a number with six significant digits; a sign for an infinite one, a dash for NaN."""
    return f"{value:.6g}" if math.isfinite(value) else _not_finite(value)


def exact(value: float) -> str:
    """Return a number as JavaScript's `Number` reads it back exactly."""
    return repr(value) if math.isfinite(value) else _SPELLED.get(value, "NaN")


def _not_finite(value: float) -> str:
    return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a percentage, with a digit behind the point where it is not a round number."""
    hundredths = share * 100
    if not math.isfinite(hundredths):
        return _not_finite(hundredths)
    rounded = round(hundredths)
    if math.isclose(hundredths, rounded, abs_tol=1e-9):
        return f"{rounded} %"
    return f"{hundredths:.1f} %" if hundredths >= 0.1 else "< 0.1 %"


def duration(seconds: float) -> str:
    """Return a time in the two units that fit it."""
    if not 60 <= seconds < math.inf:
        return f"{number(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def megabytes(size: float) -> str:
    """Return bytes in the binary unit that fits them."""
    if not 1024 <= size < math.inf:
        return f"{number(size, 0)} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024 or unit == "GiB":
            return f"{size:,.1f} {unit}"
    raise AssertionError


def named_value(count: float) -> str:
    """Return a large count with its unit, such as 4.9 M."""
    for power, unit in ((9, "B"), (6, "M"), (3, "K")):
        if 10**power <= count < math.inf:
            return (
                f"{count / 10**power:.1f} {unit}" if count < 10 ** (power + 2) else f"{count / 10**power:,.0f} {unit}"
            )
    return number(count, 0)
