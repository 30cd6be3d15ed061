"""Write the public names of kerasgen 0.1.0 into `names.json`: those of its reference, and what its packages offer.

    python write_names.py CHECKOUT_OF_0_1_0

A name has the arguments that it may be called with, those by place before those by name alone, and a class its
attributes and methods. Beside them stand 0.1.0's entry points, extras, and the flags of each command.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COMMANDS = ("demo", "list", "fit", "generate", "evaluate")
PACKAGES = ("", ".corpora", ".evaluation", ".exporters", ".generation", ".models", ".samplers", ".tokens", ".tuners")


def main(checkout: Path) -> None:
    os.environ["KERAS_BACKEND"] = "jax"
    sys.path.insert(0, str(checkout))
    names = {name: described(name) for name in sorted(documented(checkout))}
    for module in [name for name, each in names.items() if each["kind"] == "module"]:
        held = importlib.import_module(module)
        own = [n for n, value in vars(held).items() if getattr(value, "__module__", None) == module or n.isupper()]
        public = {n for n in own if not n.startswith("_")} - {"T"} | set(getattr(held, "__all__", ()))
        names |= {f"{module}.{n}": described(f"{module}.{n}") for n in sorted(public)}
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    written = {
        "names": dict(sorted(names.items())),
        "entry_points": project["entry-points"],
        "extras": sorted(project["optional-dependencies"]),
        "commands": {command: flags(command) for command in COMMANDS},
    }
    text = json.dumps(written, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    (HERE / "names.json").write_text(text + "\n", encoding="utf-8")


def documented(checkout: Path) -> set[str]:
    """The names of the reference's pages, and what each package lists."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (checkout / "docs" / "reference").glob("*.md"))
    found = {each[2] for each in re.finditer(r"auto(class|function|module):: (\S+)", pages)}
    for package in (f"kerasgen{each}" for each in PACKAGES):
        found |= {f"{package}.{name}" for name in importlib.import_module(package).__all__}
    return found


def described(address: str) -> dict[str, Any]:
    """What a name is, and what it takes and has."""
    found: Any = None
    parts = address.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        break
    for part in parts[length:]:
        found = getattr(found, part)
    if inspect.ismodule(found):
        return {"kind": "module"}
    if inspect.isclass(found):
        return {"kind": "class", **arguments(found), "has": attributes(found)}
    return {"kind": "function", **arguments(found)} if callable(found) else {"kind": "value"}


def arguments(function: Any) -> dict[str, Any]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return {}
    own = [each for each in parameters if each.name not in ("self", "cls")]
    by_place = [each.name for each in own if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return {"by_place": by_place, "by_name": [each.name for each in own if each.kind is inspect.Parameter.KEYWORD_ONLY]}


def attributes(kind: type) -> dict[str, Any]:
    """Public attributes and methods, but those of Python's own exceptions."""
    inherited = set(dir(Exception)) | set(getattr(kind, "__annotations__", ()))
    names = {name for name in dir(kind) if not name.startswith("_")} - set(dir(Exception))
    methods = {
        name: arguments(getattr(kind, name)) for name in sorted(names - inherited) if callable(getattr(kind, name))
    }
    return methods | {
        name: {} for name in sorted(names | set(getattr(kind, "__dataclass_fields__", ()))) if name not in methods
    }


def flags(command: str) -> list[str]:
    """The flags that a command declares, as its help text lists them."""
    from kerasgen.cli import _parser

    group = next(action for action in _parser()._actions if action.choices)
    options = group.choices[command]._option_string_actions
    return sorted(option for option in options if option.startswith("--") and option != "--help")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
