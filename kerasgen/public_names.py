"""Imports a package's public names when they are first used; its `__init__.pyi` lists them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazily(package: str, *own: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package whose names stand in its stub.

    Args:
        package: its name; its stub imports each public name from where it lives.
        own: public names that the package itself defines.
    """

    def get(name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # what Python itself asks a module for
            raise AttributeError(f"module {package!r} has no attribute {name!r}.")
        homes = _homes(package)
        if name == "__all__":
            value: Any = [*homes, *own]
        elif name not in homes:
            from kerasgen.keywords import meant

            hint = "" if name.startswith("_") else meant(name, homes)
            raise AttributeError(f"module {package!r} has no attribute {name!r}.{hint}")
        elif homes[name] == package:
            value = import_module(f"{package}.{name}")
        else:
            value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted([*_homes(package), *own])


@functools.cache
def _homes(package: str) -> dict[str, str]:
    """Return the module that each public name is imported from, as the stub says."""
    import ast
    from importlib.resources import files  # and no path: a package may be imported from an archive

    stub = ast.parse(files(package).joinpath("__init__.pyi").read_text(encoding="utf-8"))
    imports = [statement for statement in stub.body if isinstance(statement, ast.ImportFrom)]
    return {name.name: str(statement.module) for statement in imports for name in statement.names}
