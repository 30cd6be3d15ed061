"""Collects what is wrong with a recipe, so that all of it is told at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from kerasgen.errors import RecipeError, RecipeFault
from kerasgen.recipes.lines import Key, line_of


class Faults:
    """The faults of one recipe.

    Args:
        path: of the file, or None for a text.
        lines: the line of each setting.
        assigned: settings of the command line, which no line has.
    """

    def __init__(self, path: Path | None, lines: Mapping[Key, int], assigned: Collection[Key] = ()) -> None:
        self.path = path
        self._lines = dict(lines)
        self._assigned = set(assigned)
        self._found: list[RecipeFault] = []

    def __len__(self) -> int:
        return len(self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, key: Key, message: str) -> None:
        """Note a fault of a setting, or of a table where the setting is lacking."""
        line = None if key in self._assigned else line_of(self._lines, key)
        self._found.append(RecipeFault(dotted(key), message, line))

    def check(self) -> None:
        """Raise a `RecipeError` with all faults, in the order of their lines, if there are any."""
        if self._found:
            found = sorted(self._found, key=lambda fault: fault.line or 0)
            raise RecipeError("\n".join(map(self._shown, found)), faults=found, path=self.path)

    def _shown(self, fault: RecipeFault) -> str:
        place = "recipe" if self.path is None else str(self.path)
        place = f"{place}:{fault.line}" if fault.line is not None else place
        return f"{place}: {fault.key + ': ' if fault.key else ''}{fault.message}"


def dotted(key: Key) -> str:
    """Return a key as `--set` takes it, such as `exports.0.path`."""
    return ".".join(map(str, key))
