"""Names of earlier versions that go on working: each warns once at the line that uses it, and says what to write."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def warn(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that a name is deprecated.

    Args:
        old: the name, as it was written.
        new: what to write for it, as a sentence goes on after "Write".
        stacklevel: of the line that is told, as `warnings.warn` counts; 2 is the caller of who calls this.
    """
    message = f"{old} is deprecated since kerasgen 1.0, and goes with kerasgen 2. Write {new}."
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)


def moved(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module, some of whose names live elsewhere now.

    Args:
        module: its name.
        places: each former name and where it lives, as `"package.module:name"`.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, attribute = places[name].partition(":")
        warn(f"{module}.{name}", f"{home}.{attribute}")
        return getattr(import_module(home), attribute)

    return get
