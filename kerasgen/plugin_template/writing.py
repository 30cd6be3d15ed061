"""Writes a new package from the files of the template: whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import kerasgen
from kerasgen.errors import ArgumentError
from kerasgen.files.path_arguments import path_argument
from kerasgen.plugin_template import kinds as all_kinds
from kerasgen.plugin_template import names as naming
from kerasgen.plugin_template import texts
from kerasgen.plugin_template.kinds import Kind
from kerasgen.plugin_template.names import Names
from kerasgen.plugins import Registry

_ALWAYS = ("py.typed", "test_package.py")


def write(name: str, kinds: Iterable[str] | None, parent: str | os.PathLike[str]) -> Path:
    """Write a package with plugins of some kinds, and return its folder.

    Args:
        name: of what it brings, such as `"haiku"`: the package is `kerasgen-haiku`, and its plugins are called `haiku`.
        kinds: names of kinds, such as `["corpus,sampler"]`; None for all.
        parent: the folder to write its folder into, which is there.

    Raises:
        ArgumentError: the name can't be one, is taken, or something lies in the way; nothing was written.
    """
    chosen, names = all_kinds.asked_for(kinds), naming.read(name)
    naming.check_free(names, chosen, _registries())
    within = path_argument(parent)
    if not within.is_dir():
        raise ArgumentError(f"The folder to write into must be there. Received: {str(within)!r}.")
    folder = within / names.distribution
    if os.path.lexists(folder):
        raise ArgumentError(f"{folder} is there already. Choose another name, another folder, or move it away.")
    try:
        stage = Path(tempfile.mkdtemp(prefix=f".{names.distribution}.", dir=within))
    except OSError as cause:
        raise ArgumentError(f"Nothing can be written into {within}: {cause}.") from cause
    try:
        stage.chmod(0o755)  # a temporary folder is its owner's alone
        for relative, content in _contents(names, chosen):
            path = stage / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        stage.rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return folder


def _registries() -> dict[str, Registry[Any]]:
    from kerasgen import constraints, corpora, exporters, models, samplers, tuners

    every = (corpora, models, tuners, samplers, constraints, exporters)
    return {module.REGISTRY.kind: module.REGISTRY for module in every}


def _contents(names: Names, chosen: Sequence[Kind]) -> Iterator[tuple[str, str]]:
    """Yield the path of each file in the package, and its text."""
    wanted = {*_ALWAYS, *(f"{kind.name}.py" for kind in chosen), *(f"test_{kind.name}.py" for kind in chosen)}
    for relative, source in _files(files("kerasgen.plugin_template") / "files", ""):
        if source.name in wanted:
            yield names.put_into(relative), names.put_into(source.read_text(encoding="utf-8"))
    yield f"src/{names.module}/__init__.py", names.put_into(texts.package(chosen))
    yield "pyproject.toml", names.put_into(texts.pyproject(chosen, kerasgen.__version__))
    yield "README.md", names.put_into(texts.readme(chosen))


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry
