"""Reads the entry points that installed packages declare, and imports none of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

DISTRIBUTION: Final = "kerasgen"
KINDS: Final = ("corpora", "models", "tuners", "samplers", "constraints", "exporters")
"""What the six contracts are called; the entry-point group of each is `kerasgen.` and this."""

UNNAMED: Final = "an unnamed package"


@dataclass(frozen=True)
class Declared:
    """What the installed packages declare in one entry-point group.

    Args:
        by_name: the entry points of each name; several where packages claim the same one.
        unreadable: the packages whose entry points can't be read.
    """

    by_name: dict[str, list[EntryPoint]] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


def read(group: str, *, is_wanted: Callable[[str], bool] = lambda distribution: True) -> Declared:
    """Return what is declared in a group.

    Args:
        group: the entry-point group, such as `"kerasgen.samplers"`.
        is_wanted: whether a package matters; of one that doesn't, no warning says that it can't be read.

    Warns:
        RuntimeWarning: a package's entry points can't be read; it is passed over.
    """
    # Imported here: importlib.metadata takes 15 ms that `import kerasgen` need not spend.
    from importlib.metadata import entry_points

    try:
        return Declared(_group(entry_points(group=group)))
    except Exception:  # of whatever kind Python's reader of the file that is at fault happens to raise
        return _readable(group, is_wanted)


def _readable(group: str, is_wanted: Callable[[str], bool]) -> Declared:
    """Return the entry points of every package whose own can be read; Python stops at the first other package."""
    from importlib.metadata import distributions

    points: list[EntryPoint] = []
    unreadable: list[str] = []
    seen: set[str] = set()
    for distribution in distributions():
        name = name_of(distribution)
        if name in seen:  # an earlier folder of sys.path has it too, and counts
            continue
        seen.add(name)
        try:
            points += [point for point in distribution.entry_points if point.group == group]
            _group(points)
        except Exception as cause:
            unreadable.append(name)
            if is_wanted(name):
                warnings.warn(
                    f"The package {name!r} is passed over: its entry_points.txt can't be read ({type(cause).__name__}: "
                    f"{cause}). Install it again.",
                    RuntimeWarning,
                    stacklevel=2,
                )
    return Declared(_group(points), tuple(unreadable))


def _group(points: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Group entry points by name; one that is seen twice from one package (an editable install) counts once."""
    grouped: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in points:
        grouped.setdefault(point.name, {})[(distribution_of(point), point.value)] = point
    return {name: list(distinct.values()) for name, distinct in grouped.items()}


def distribution_of(point: EntryPoint) -> str:
    """Return the name of the package that declares an entry point."""
    return UNNAMED if point.dist is None else name_of(point.dist)


def version_of(point: EntryPoint) -> str:
    """Return the version of the package that declares an entry point; empty where its metadata are damaged."""
    try:
        return str(point.dist.version) if point.dist is not None else ""
    except Exception:  # damaged metadata
        return ""


def name_of(distribution: Distribution) -> str:
    """Return a package's name."""
    try:
        return distribution.name or UNNAMED
    except Exception:  # damaged metadata
        return UNNAMED
