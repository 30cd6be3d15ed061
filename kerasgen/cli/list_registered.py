"""`kerasgen list`: what is registered, plugins included."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kerasgen.cli.arguments import Json
from kerasgen.cli.json_output import show_json
from kerasgen.terminal import show

if TYPE_CHECKING:
    from kerasgen.plugins import Registry

Kind = Literal["corpora", "models", "tuners", "samplers", "constraints", "exporters"]


def run(
    kind: Annotated[Kind | None, typer.Argument(metavar="KIND", help="one kind (default: all)")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="describe this one")] = None,
    as_json: Json = False,
) -> int:
    """Print the names with the packages that bring them, or one's arguments."""
    from kerasgen import constraints, corpora, exporters, models, samplers, tuners

    registries: dict[str, Registry[Any]] = {
        "corpora": corpora.REGISTRY,
        "models": models.REGISTRY,
        "tuners": tuners.REGISTRY,
        "samplers": samplers.REGISTRY,
        "constraints": constraints.REGISTRY,
        "exporters": exporters.REGISTRY,
    }
    if kind is not None and name is not None:
        description = registries[kind].describe(name)
        if as_json:
            show_json({**_entry(registries[kind], name), "description": description})
        else:
            show(description)
        return 0
    chosen = [kind] if kind is not None else list(registries)
    entries = {one: [_entry(registries[one], known) for known in registries[one].names()] for one in chosen}
    if as_json:
        show_json(entries)
        return 0
    width = max((len(entry["name"]) for group in entries.values() for entry in group), default=0)
    for one, group in entries.items():
        show(f"{one}:")
        for entry in group:
            show(f"  {entry['name']:{width}}  {entry['distribution']} {entry['version']}".rstrip())
    return 0


def _entry(registry: Registry[Any], name: str) -> dict[str, str]:
    """Return a name with the packages that declare it, and their versions."""
    distribution = registry.distribution(name)
    versions = []
    for package in distribution.split(", "):
        try:
            versions.append(metadata.version(package))
        except metadata.PackageNotFoundError:
            versions.append("")
    return {"name": name, "distribution": distribution, "version": ", ".join(versions)}
