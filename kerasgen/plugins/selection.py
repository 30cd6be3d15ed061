"""Reads `KERASGEN_PLUGINS`, which limits the packages whose plugins are loaded.

Its value is `all` (as if it were not set), `none` or nothing (the built-ins alone), or a list with commas. Each item
is a package (`kerasgen-field`), a plugin's name (`eta`), or a kind and a name (`samplers.eta`). Built-ins are always
there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kerasgen import keywords
from kerasgen.errors import UnknownNameError
from kerasgen.plugins import entry_points

VARIABLE: Final = "KERASGEN_PLUGINS"


@dataclass(frozen=True)
class Selection:
    """Which packages' plugins may be loaded.

    Args:
        items: packages, names, and kinds with names, all normalized; None for any.
    """

    items: frozenset[str] | None = None

    def allows(self, kind: str, name: str, distribution: str) -> bool:
        """Return whether a plugin may be loaded.

        Args:
            kind: such as `"samplers"`.
            name: its registered name.
            distribution: the package that declares it.
        """
        if self.items is None or distribution == entry_points.DISTRIBUTION:
            return True
        return not self.items.isdisjoint({normalized(distribution), normalized(name), _full_name(kind, name)})

    def allows_package(self, distribution: str) -> bool:
        """Return whether anything of a package may be loaded, as far as can be told without reading its names."""
        return self.items is None or normalized(distribution) in self.items


def normalized(name: str) -> str:
    """Return a name as names are compared: in small letters, with one hyphen for each run of `-`, `_` and `.`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _full_name(kind: str, name: str) -> str:
    return normalized(f"{kind}.{name}")


def from_environment(environment: Mapping[str, str] = os.environ) -> Selection:
    """Return what `KERASGEN_PLUGINS` selects; all where it is not set.

    Raises:
        UnknownNameError: an item names nothing that is installed, or `all` or `none` stands beside others.
    """
    value = environment.get(VARIABLE)
    if value is None:
        return Selection()
    items = [item.strip() for item in value.split(",") if item.strip()]
    words = [item.lower() for item in items]
    if words == ["all"]:
        return Selection()
    if words in ([], ["none"]):
        return Selection(frozenset())
    alone = next((word for word in words if word in ("all", "none")), None)
    if alone is not None:
        raise UnknownNameError(
            f"{VARIABLE}={value!r} can't be read: {alone!r} stands alone. Write {VARIABLE}={alone}, or name packages "
            "and plugins without it.",
            name=alone,
        )
    _check_known(items, value)
    return Selection(frozenset(map(normalized, items)))


def _check_known(items: list[str], value: str) -> None:
    """Raise unless each item names a package or a plugin that is installed."""
    spelled: dict[str, str] = {entry_points.DISTRIBUTION: entry_points.DISTRIBUTION}
    for kind in entry_points.KINDS:
        declared = entry_points.read(f"kerasgen.{kind}", is_wanted=lambda distribution: False)
        spelled |= {normalized(package): package for package in declared.unreadable}
        for name, points in declared.by_name.items():
            spelled |= {normalized(name): name, _full_name(kind, name): f"{kind}.{name}"}
            spelled |= {normalized(package): package for package in map(entry_points.distribution_of, points)}
    for item in items:
        if normalized(item) not in spelled:
            close = tuple(dict.fromkeys(spelled[near] for near in keywords.near(normalized(item), spelled)))
            raise UnknownNameError(
                f"{VARIABLE} names {item!r}, and no package with plugins and no plugin that is installed here is "
                f"called so.{keywords.suggestion(close)} It takes packages, names of plugins, or kinds with names such "
                f"as samplers.eta, with commas between them; or all; or none. Received: {VARIABLE}={value!r}.",
                name=item,
                near=close,
            )
