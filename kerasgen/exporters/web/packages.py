"""Finds LiteRT.js, which runs the model in a browser, among installed packages of npm, and copies what a page loads."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

from kerasgen.errors import MissingDependencyError

PACKAGE: Final = "@litertjs/core"
UTILITIES: Final = "@litertjs/wasm-utils"
VERSION: Final = "2.5.3"
"""The version that the page was written for; another one is refused."""

INSTALL: Final = f"npm install {PACKAGE}@{VERSION}"
# The plain build and the one for older browsers. A browser loads one of them.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")


def find(given: str | os.PathLike[str] | None) -> Path:
    """Return the `node_modules` folder that holds LiteRT.js.

    Args:
        given: where it is; None looks in the current directory and the ones above it.

    Raises:
        MissingDependencyError: it is not there, or in another version.
    """
    here = Path.cwd()
    places = [here, *here.parents] if given is None else [Path(given), Path(given).parent]
    versions = []
    for place in places:
        modules = place if place.name == "node_modules" else place / "node_modules"
        version = _version(modules / PACKAGE)
        if version == VERSION and (modules / UTILITIES).is_dir():
            return modules
        versions += [] if version is None else [f"{version} in {modules}"]
    found = (
        f"Found: {', '.join(versions)}." if versions else f"It is in no node_modules folder at or above {places[0]}."
    )
    raise MissingDependencyError(
        f"A page runs the model by the npm package {PACKAGE} {VERSION}. {found} Run: {INSTALL}, or say where it is "
        "installed: node_modules=….",
        package=PACKAGE,
    )


def _version(package: Path) -> str | None:
    try:
        return str(json.loads((package / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def copy(modules: Path, target: Path) -> None:
    """Copy LiteRT.js into a folder from which a browser can load it without a map of imports.

    Args:
        modules: what `find` returned.
        target: the folder, which is made.
    """
    target.mkdir()
    core, utilities = modules / PACKAGE, modules / UTILITIES
    script = (core / "dist" / "index.js").read_text(encoding="utf-8")
    script = script.replace(f'"{UTILITIES}"', '"./wasm-utils.js"')
    (target / "litert.js").write_text(_without_map(script), encoding="utf-8")
    text = (utilities / "dist" / "index.js").read_text(encoding="utf-8")
    (target / "wasm-utils.js").write_text(_without_map(text), encoding="utf-8")
    for build in _BUILDS:
        for ending in (".js", ".wasm"):
            shutil.copyfile(core / "wasm" / (build + ending), target / (build + ending))


def _without_map(script: str) -> str:
    """Leave out the line that names a file for debuggers, which is not copied."""
    return "\n".join(line for line in script.split("\n") if not line.startswith("//# sourceMappingURL"))
