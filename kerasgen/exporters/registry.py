"""Chooses the exporter that writes a path: the given one, or the one that claims the path's ending.

A built-in's endings are its own. Where a path ends like none of them, the exporters of other packages are imported and
asked for theirs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kerasgen import exporters, keywords, specs
from kerasgen.errors import ArgumentError, ExportArgumentError, PluginConflictError, PluginError, call_error
from kerasgen.exporters.base import Exporter

_CALL = ("path", "exporter", "overwrite", "progress")  # what `Pipeline.export` itself takes
# What other programs write; no artefact of a built-in exporter is one.
_FOREIGN = (".onnx", ".safetensors", ".pt", ".pth", ".keras", ".h5", ".pb", ".ckpt", ".mlmodel")


def claimants(path: Path) -> list[str]:
    """Return the names of the exporters that claim a path's ending, in letters of either case.

    A built-in that claims it is alone. Where none does, other packages are asked; one that can't be imported is passed
    over with a warning.
    """
    registry = exporters.REGISTRY
    built_ins = registry.built_ins()
    built_in_claimants = _claim(path, built_ins)
    return built_in_claimants or _claim(path, [name for name in registry.names() if name not in built_ins])


def _claim(path: Path, names: Iterable[str]) -> list[str]:
    """Return those of the exporters that claim the longest ending of the path's name."""
    lengths: dict[str, int] = {}
    for name in names:
        try:
            suffixes = exporters.REGISTRY.get(name).suffixes
        except PluginError as error:
            warnings.warn(
                f"An exporter was not asked whether it writes {path.name!r}: {error}", RuntimeWarning, stacklevel=4
            )
            continue
        suffixes = (suffixes,) if isinstance(suffixes, str) else suffixes
        ends = [len(ending) for ending in suffixes if ending and path.name.lower().endswith(ending.lower())]
        if ends:
            lengths[name] = max(ends)
    return [name for name, length in lengths.items() if length == max(lengths.values())]


def by_ending(path: Path) -> str:
    """Return the name of the exporter whose artefacts end like this path.

    Raises:
        ExportArgumentError: no exporter's do.
        PluginConflictError: several packages claim the ending.
    """
    names = claimants(path)
    if len(names) > 1:
        owners = ", ".join(sorted({exporters.REGISTRY.distribution(name) for name in names}))
        raise PluginConflictError(
            f"The ending of {path.name!r} is claimed by the exporters {' and '.join(map(repr, names))} of "
            f"{owners}. Say which shall write it: exporter={names[0]!r}.",
            distribution=owners,
        )
    if names:
        return names[0]
    if path.suffix:
        known = [ending for name in exporters.REGISTRY.built_ins() for ending in exporters.REGISTRY.get(name).suffixes]
        dotted = ", ".join(ending for ending in known if ending.startswith("."))
        others = " or ".join(repr(ending) for ending in known if not ending.startswith("."))
        raise ExportArgumentError(
            f"No exporter is known by the ending {path.suffix!r}; there are {dotted}, names that end in {others}, and "
            f"names without an ending, which are presets. Received: {str(path)!r}. Rename it, or say exporter=…."
        )
    return "preset"


def check_ending(path: Path, exporter: str) -> None:
    """Refuse a path whose ending says that another exporter or program wrote it.

    A plugin's exporter that claims no ending may write any.

    Raises:
        ExportArgumentError: it does.
    """
    is_built_in = exporter in exporters.REGISTRY.built_ins()
    if not is_built_in and not (exporter in exporters.REGISTRY.names() and exporters.REGISTRY.get(exporter).suffixes):
        return
    owners = claimants(path)
    if owners and exporter not in owners:
        raise ExportArgumentError(
            f"The name {path.name!r} is that of an artefact of the exporter {owners[0]!r}, and {exporter!r} is to "
            f"write it. Choose another name, or exporter={owners[0]!r}."
        )
    if is_built_in and path.suffix.lower() in _FOREIGN:
        raise ExportArgumentError(
            f"The name {path.name!r} ends like a file of another format, and the exporter {exporter!r} is to write it. "
            "Choose a name with its own ending, or without one."
        )


def choose(exporter: str | Exporter | None, path: Path, settings: Mapping[str, Any]) -> Exporter:
    """Return the exporter of a call.

    Args:
        exporter: a registered name, `"name:key=value,…"`, or an `Exporter`; None for the one of the path's ending.
        path: where it shall write.
        settings: the exporter's, if it is given by name or by the path; text may hold others.

    Raises:
        ArgumentError: settings for an exporter that has its own.
        ExportArgumentError: no exporter takes these settings, one is given twice, or the path ends like another
            exporter's artefacts.
        UnknownNameError: no exporter is called so.
        PluginError: a package is at fault, or several claim the ending.
    """
    if exporter is None:
        exporter = by_ending(path)
    chosen = _choose(exporter, settings)
    check_ending(path, exporters.REGISTRY.name_of(chosen) or "")
    return chosen


def _choose(exporter: str | Exporter, settings: Mapping[str, Any]) -> Exporter:
    if not settings:
        return exporters.REGISTRY.resolve(exporter)
    for name in settings:
        meant = keywords.same(name, _CALL)
        if meant is not None:
            raise call_error(ExportArgumentError)(
                f"export() has no argument {name!r}, and no exporter has. Did you mean {meant!r}?"
            )
    if not isinstance(exporter, str):
        raise ArgumentError(f"An exporter that is an instance has its settings. Received: {sorted(settings)}.")
    name, written = specs.split_text(exporter, error=ExportArgumentError)
    twice = sorted(written.keys() & settings.keys())
    if twice:
        raise ExportArgumentError(
            "Settings must be given once, in the exporter's text or by keyword. Received both ways: "
            f"{', '.join(twice)}."
        )
    return exporters.REGISTRY.build(name, {**written, **settings})
