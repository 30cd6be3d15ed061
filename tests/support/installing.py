"""Packages with entry points, installed into a folder as pip would: real metadata, found by Python's own importlib."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from places import WITHOUT_TENSORFLOW

import kerasgen

PLUGINS = Path(__file__).resolve().parent / "plugins"


def install(
    site: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
    *,
    version: str = "1.0",
    named: bool = True,
) -> None:
    """Put a distribution into the folder `site`.

    Args:
        site: a folder of sys.path.
        name: of the distribution.
        entry_points: group to name to `"module:attribute"`.
        modules: name of a module to its source.
        version: of the distribution.
        named: whether the metadata tell the name; a damaged installation's don't.
    """
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    if named:
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in entry_points.items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(sections))
    for module, source in (modules or {}).items():
        (site / f"{module}.py").write_text(source, encoding="utf-8")


def install_project(site: Path, project: str) -> None:
    """Put a project of `tests/support/plugins` into the folder `site`, with what its pyproject.toml declares."""
    declared = tomllib.loads((PLUGINS / project / "pyproject.toml").read_text(encoding="utf-8"))
    for package in declared["tool"]["setuptools"]["packages"]:
        shutil.copytree(PLUGINS / project / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    about = declared["project"]
    install(site, about["name"], about["entry-points"], version=about["version"])


def without_tensorflow(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment whose Python processes find no TensorFlow, as without kerasgen's extra of that name.

    KerasHub imports TensorFlow where it finds it: 2.5 s of the processor in every child that loads a model. On the
    backend TensorFlow the environment stays as it is.
    """
    variables = dict(environment)
    if variables.get("KERAS_BACKEND") != "tensorflow":
        paths = [str(WITHOUT_TENSORFLOW), variables.get("PYTHONPATH")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return variables


def child(source: str, *paths: Path, **environment: str | None) -> Any:
    """Run Python code in a new process, and return what its last line of output says as JSON.

    Args:
        source: the code; it prints one JSON value at its end.
        paths: folders put before all others on its sys.path.
        environment: variables set, or taken away where the value is None.
    """
    variables = dict(os.environ)
    variables["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *filter(None, [variables.get("PYTHONPATH")])])
    for key, value in environment.items():
        variables.pop(key, None)
        if value is not None:
            variables[key] = value
    done = subprocess.run(
        [sys.executable, "-c", source], env=variables, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def run_module(python: Path | str, *arguments: str, within: Path) -> str:
    """What a command of Python says, which must succeed."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [str(python), "-m", *arguments], cwd=within, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def environment_of_its_own(folder: Path) -> Path:
    """The Python of a new virtual environment that sees this one's packages, kerasgen as if installed from a wheel.

    A .pth file names this environment's folders, so a package that is installed into the new one is in it alone.
    """
    venv.create(folder, with_pip=False)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    seen = dict.fromkeys([*site.getsitepackages(), sysconfig.get_path("purelib")])
    (packages / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    (packages / "kerasgen").symlink_to(Path(kerasgen.__file__).resolve().parent)
    return folder / "bin" / "python"
