"""Finds the package of npm that runs the model in a browser, and copies from it what a page loads."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Final

from kerasgen.errors import MissingDependencyError

UTILITIES: Final = "@litertjs/wasm-utils"


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of npm with an engine in WebAssembly.

    Args:
        name: what npm calls it.
        version: the one that the page was written for; another one is refused.
        builds: the beginnings of its engine's files, of which a browser loads one.
        entry: the file that a page imports its module as.
    """

    name: str
    version: str
    builds: tuple[str, ...]
    entry: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"npm install {self.name}@{self.version}"


# The plain build, and the one for older browsers.
LITERT: Final = Package(
    "@litertjs/core", "2.5.3", ("litert_wasm_internal", "litert_wasm_compat_internal"), entry="litert.js"
)
# The same two, and both again for browsers in which a program of WebAssembly can't wait for a promise.
LITERT_LM: Final = Package(
    "@litert-lm/core",
    "0.17.1",
    tuple(f"litertlm_wasm_{kind}internal" for kind in ("", "compat_", "asyncify_", "compat_asyncify_")),
    entry="index.js",
)


def find(given: str | os.PathLike[str] | None, package: Package = LITERT) -> Path:
    """Return the `node_modules` folder that holds a package.

    Args:
        given: where it is; None looks in the current directory and the ones above it.
        package: which one.

    Raises:
        MissingDependencyError: it is not there, or in another version.
    """
    here = Path.cwd()
    places = [here, *here.parents] if given is None else [Path(given), Path(given).parent]
    versions = []
    for place in places:
        modules = place if place.name == "node_modules" else place / "node_modules"
        version = _version(modules / package.name)
        if version == package.version and (modules / UTILITIES).is_dir():
            return modules
        versions += [] if version is None else [f"{version} in {modules}"]
    found = (
        f"Found: {', '.join(versions)}." if versions else f"It is in no node_modules folder at or above {places[0]}."
    )
    raise MissingDependencyError(
        f"A page runs the model by the npm package {package.name} {package.version}. {found} Run: {package.install}, "
        "or say where it is installed: node_modules=….",
        package=package.name,
    )


def _version(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def copy(modules: Path, target: Path, package: Package = LITERT) -> None:
    """Copy a package into a folder from which a browser can load it without a map of imports.

    Args:
        modules: what `find` returned.
        target: the folder, which is made.
        package: which one.
    """
    scripts = modules / package.name / "dist"
    if package is LITERT:  # one file
        _copy_script(scripts / "index.js", target / package.entry, "./wasm-utils.js")
    else:
        for script in sorted(scripts.rglob("*.js")):
            inner = script.relative_to(scripts)
            if inner.parts[0] != "testing":
                _copy_script(script, target / inner, "../" * (len(inner.parts) - 1) + "./wasm-utils.js")
    _copy_script(modules / UTILITIES / "dist" / "index.js", target / "wasm-utils.js", "")
    for build in package.builds:
        for ending in (".js", ".wasm"):
            shutil.copyfile(modules / package.name / "wasm" / (build + ending), target / (build + ending))


def _copy_script(source: Path, target: Path, utilities: str) -> None:
    """Copy a script that names the utilities by their place, without the line that names a file for debuggers."""
    script = source.read_text(encoding="utf-8")
    for quote in "\"'":
        script = script.replace(f"{quote}{UTILITIES}{quote}", f"{quote}{utilities}{quote}")
    lines = [line for line in script.split("\n") if not line.startswith("//# sourceMappingURL")]
    target.parent.mkdir(exist_ok=True, parents=True)
    target.write_text("\n".join(lines), encoding="utf-8")
