"""Which exporter writes a path: the one that is given, or the one whose artefacts end like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen import exporters, keywords, specs
from kerasgen.errors import ArgumentError, ExportArgumentError, call_error
from kerasgen.exporters.base import Exporter
from kerasgen.exporters.staging import ENDINGS, check_ending

_CALL = ("path", "exporter", "overwrite")  # what `Pipeline.export` itself takes
_SUFFIXES = {ending: name for ending, name in ENDINGS.items() if ending.startswith(".")}


def by_ending(path: Path) -> str:
    """Return the name of the exporter whose artefacts end like this path, in letters of either case.

    Raises:
        ExportArgumentError: no exporter's do.
    """
    name, suffix = path.name.lower(), path.suffix.lower()
    if name.endswith("saved_model"):
        return "saved_model"
    if suffix and suffix not in _SUFFIXES:
        raise ExportArgumentError(
            f"No exporter is known by the ending {path.suffix!r}; there are {', '.join(_SUFFIXES)}, names that end in "
            f"'saved_model', and names without an ending, which are presets. Received: {str(path)!r}. Rename it, or "
            "say exporter=…."
        )
    return _SUFFIXES.get(suffix, "preset")


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
