"""`kerasgen plugins`: what packages bring and what is at fault with it, and the beginning of a new package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kerasgen.cli.arguments import Json, option
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError, PluginError, UnknownNameError
from kerasgen.terminal import show

if TYPE_CHECKING:
    from kerasgen.plugins import Registry
    from kerasgen.plugins.listing import Plugin

Action = Literal["list", "check", "new"]


def run(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="ACTION",
            help="list (the default), check, or new, which writes a package whose tests and types pass",
            show_default=False,
        ),
    ] = "list",
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="for check: a package or a registered name (default: all); for new: the name of the package",
            show_default=False,
        ),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        option(
            "--with",
            help="for new: the kinds of its plugins, with commas between: corpus, sampler, exporter, model, tuner, "
            "constraint (default: all of them)",
            metavar="KINDS",
        ),
    ] = None,
    parent: Annotated[
        Path | None, option("--in", help="for new: the folder to write it into (default: the one you are in)")
    ] = None,
    as_json: Json = False,
) -> int:
    """List, check or write."""
    if action == "new":
        return _new(name, kinds, parent, as_json)
    given = [flag for flag, value in (("--with", kinds), ("--in", parent)) if value is not None]
    if given:
        raise ArgumentError(f"{given[0]} is of `kerasgen plugins new NAME` alone. Received: plugins {action}.")
    if action == "list" and name is not None:
        raise ArgumentError(f"`kerasgen plugins list` lists all. For one, write: kerasgen plugins check {name}")
    return _list(name, as_json, opens=action == "check")


def _registries() -> list[Registry[Any]]:
    from kerasgen import constraints, corpora, exporters, models, samplers, tuners

    return [each.REGISTRY for each in (corpora, models, tuners, samplers, constraints, exporters)]


def _list(name: str | None, as_json: bool, *, opens: bool) -> int:
    from kerasgen.plugins import listing, selection

    def is_asked_for(registered: str, distribution: str) -> bool:
        return name is None or selection.normalized(name) in map(selection.normalized, (registered, distribution))

    further = {"further": _runtime_fault} if opens else {}
    listed = listing.plugins(_registries(), only=is_asked_for, **further)
    if name is not None and not listed:
        raise UnknownNameError(
            f"No package with plugins and no plugin is called {name!r}. `kerasgen plugins` lists what there is.",
            name=name,
        )
    faults = [plugin for plugin in listed if plugin.fault is not None]
    if as_json:
        show_json(
            {
                "plugins": [plugin.to_dict() for plugin in listed],
                "contract_versions": {registry.kind: registry.version for registry in _registries()},
                "selection": os.environ.get(selection.VARIABLE),
                "faults": len(faults),
            }
        )
    else:
        _show(listed, every=name is not None)
    return 1 if opens and faults else 0


def _runtime_fault(kind: str, name: str) -> str | None:
    """Return why what opens an exporter's artefacts can't be imported; None where it can, or for another kind."""
    if kind != "exporters":
        return None
    from kerasgen.errors import KerasgenError
    from kerasgen.runtime import formats

    try:
        named = formats.runtime_of(name)
        if named is not None:
            formats.opener(name, named)
    except (PluginError, KerasgenError, ImportError) as error:
        return str(error)
    return None


def _show(listed: Sequence[Plugin], *, every: bool) -> None:
    from kerasgen.plugins import listing

    for distribution, plugins in listing.packages(listed).items():
        built_in = plugins[0].is_built_in
        shown = [plugin for plugin in plugins if every or not built_in or plugin.fault is not None]
        show(f"{distribution} {plugins[0].version}".rstrip() + (": built in" if built_in else ""))
        if built_in and not every:
            fine = len(plugins) - len(shown)
            show(f"  {fine} names that `kerasgen list` shows" + (", all of which load" if not shown else ""))
        width = max((len(plugin.name) for plugin in shown), default=0)
        for plugin in shown:
            show(f"  {plugin.kind:11}  {plugin.name:{width}}  {_state(plugin)}")
            if plugin.note is not None:
                show(f"  {'':11}  {'':{width}}  {plugin.note}")
    if all(plugin.is_built_in for plugin in listed):
        show("No other package that is installed here declares a plugin. `kerasgen plugins new NAME` writes one.")


def _state(plugin: Plugin) -> str:
    if plugin.left_out:
        return "left out by KERASGEN_PLUGINS"
    if plugin.fault is not None:
        return f"at fault: {plugin.fault}"
    return f"loads, contract version {plugin.contract_version}"


def _new(name: str | None, kinds: Sequence[str] | None, parent: Path | None, as_json: bool) -> int:
    from kerasgen.plugin_template import write

    if name is None:
        raise ArgumentError("The name is missing. Write: kerasgen plugins new NAME --with corpus,sampler")
    folder = write(name, kinds, parent or Path())
    if as_json:
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        show_json({"folder": str(folder), "files": files})
        return 0
    show(f"{folder} is written. Its tests and types pass as they stand:")
    show(f"  cd {folder}\n  pip install -e '.[test]'\n  pytest\n  mypy\n  ruff check")
    return 0
