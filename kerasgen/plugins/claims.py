"""Says what is wrong where several packages claim one name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kerasgen.errors import PluginConflictError
from kerasgen.plugins import selection
from kerasgen.plugins.entry_points import distribution_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def shadowed(noun: str, point: EntryPoint) -> str:
    """Return the message about a package that claims a built-in's name.

    Args:
        noun: what a message calls a plugin of this kind, such as `"sampler"`.
        point: what the package declares.
    """
    owner = distribution_of(point)
    return (
        f"The {noun} {point.name!r} is kerasgen's own, and a built-in can't be shadowed: {point.value!r}, which the "
        f"package {owner!r} declares under this name, is not used. Rename it in that package's pyproject.toml, "
        f"uninstall {owner}, or leave it out with {selection.VARIABLE}."
    )


def conflict(noun: str, name: str, points: Sequence[EntryPoint]) -> PluginConflictError:
    """Return the error about a name that several packages claim, or one more than once.

    Args:
        noun: what a message calls a plugin of this kind, such as `"sampler"`.
        name: the name.
        points: two or more entry points of this name.
    """
    owners = sorted(set(map(distribution_of, points)))
    if len(owners) == 1:
        message = (
            f"The package {owners[0]!r} declares the {noun} {name!r} more than once: "
            f"{', '.join(sorted(point.value for point in points))}."
        )
    else:
        message = (
            f"The {noun} {name!r} is claimed by {' and '.join(owners)}. Uninstall all but one of them, or "
            f"name those to load in {selection.VARIABLE}."
        )
    return PluginConflictError(message, distribution=", ".join(owners))
