"""Where the names of Python, NumPy, Keras and KerasHub are documented, as inventories that Sphinx's intersphinx reads.

Keras publishes no inventory, and fetching those of the others would need a network whenever the pages are built. So
they are made here: Python's and NumPy's of the modules themselves, whose addresses follow a rule, and Keras's of the
few names that these pages use.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

Entry = tuple[str, str, str]  # name, role, address within the site

_MODULES = (
    *("builtins", "collections", "collections.abc", "contextlib", "dataclasses", "enum", "importlib.metadata"),
    *("logging", "multiprocessing", "os", "pathlib", "typing", "types", "warnings"),
)
_FUNCTIONS = {
    "bool",
    "bytearray",
    "float",
    "int",
    "list",
    "object",
    "property",
    "set",
    "slice",
    "str",
    "super",
    "tuple",
    "type",
}

KERAS: tuple[Entry, ...] = (
    ("keras.Model", "class", "api/models/model/"),
    ("keras.callbacks.Callback", "class", "api/callbacks/base_callback/"),
    ("keras.optimizers.Optimizer", "class", "api/optimizers/"),
    ("keras.optimizers.schedules.LearningRateSchedule", "class", "api/optimizers/learning_rate_schedules/"),
    ("keras_hub.models.CausalLM", "class", "keras_hub/api/base_classes/causal_lm/"),
    ("keras_hub.samplers.Sampler", "class", "keras_hub/api/samplers/samplers/"),
)


def inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write the inventories into a folder; returns Sphinx's `intersphinx_mapping`."""
    sites = {
        "python": ("https://docs.python.org/3", [*_python()]),
        "numpy": ("https://numpy.org/doc/stable", [*_numpy()]),
        "keras": ("https://keras.io", list(KERAS)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, entries) in sites.items():
        path = folder / f"{name}.inv"
        written = _inventory(name, entries)
        if not path.is_file() or path.read_bytes() != written:  # a new date would have all pages built anew
            path.write_bytes(written)
    return {name: (site, str(folder / f"{name}.inv")) for name, (site, _) in sites.items()}


def _inventory(project: str, entries: list[Entry]) -> bytes:
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The remainder is compressed by zlib.\n"
    lines = "".join(f"{name} py:{role} 1 {address} -\n" for name, role, address in sorted(set(entries)))
    return head.encode() + zlib.compress(lines.encode())


def _role(value: Any) -> str | None:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else None


def _python() -> Iterator[Entry]:
    for module in map(import_module, _MODULES):
        for name, value in _public(module):
            role = _role(value)
            if role is None and module.__name__ != "typing":
                continue
            if module.__name__ == "builtins":
                page = "exceptions" if role == "exception" else "functions" if name in _FUNCTIONS else "stdtypes"
                page = page if role != "function" else "functions"
                place = "stdtypes" if name in ("str", "bytes", "list", "tuple", "set", "dict") else page
                yield name, role or "data", f"library/{place}.html#{name}"
                continue
            full = f"{module.__name__}.{name}"
            for kind in {role or "data", "class"}:  # an annotation is looked for as a class
                yield full, kind, f"library/{module.__name__}.html#{full}"
    yield "os.PathLike", "class", "library/os.html#os.PathLike"  # not in os.__all__
    for name in ("None", "True", "False", "Ellipsis"):
        yield name, "data", f"library/constants.html#{name}"


def _numpy() -> Iterator[Entry]:
    module = import_module("numpy")
    for name, value in _public(module):
        role = _role(value)
        if role in ("class", "function"):
            yield f"numpy.{name}", role, f"reference/generated/numpy.{name}.html"
    for name in ("ArrayLike", "NDArray"):
        yield f"numpy.typing.{name}", "class", f"reference/typing.html#numpy.typing.{name}"


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]:
        yield name, getattr(module, name, None)
