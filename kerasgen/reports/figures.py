"""Writes figures as text: what a person reads, and beside it the exact value."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
    """Return a number with so many digits behind the point; a sign for one that is none."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "∞" if value == math.inf else "–"


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a percentage, with a digit behind the point where it is not a round number."""
    exact = share * 100
    if not math.isfinite(exact):
        return "–"
    rounded = round(exact)
    if math.isclose(exact, rounded, abs_tol=1e-9):
        return f"{rounded} %"
    return f"{exact:.1f} %" if exact >= 0.1 else "< 0.1 %"


def duration(seconds: float) -> str:
    """Return a time in the two units that fit it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def megabytes(size: float) -> str:
    """Return bytes in the binary unit that fits them."""
    if size < 1024:
        return f"{size:,.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024 or unit == "GiB":
            return f"{size:,.1f} {unit}"
    raise AssertionError


def named_value(count: float) -> str:
    """Return a large count with its unit, such as 4.9 M."""
    for power, unit in ((9, "B"), (6, "M"), (3, "K")):
        if count >= 10**power:
            return (
                f"{count / 10**power:.1f} {unit}" if count < 10 ** (power + 2) else f"{count / 10**power:,.0f} {unit}"
            )
    return f"{count:,.0f}"
