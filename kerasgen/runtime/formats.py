"""Finds the runtime that opens an artefact: by the exporters' registry, and the opener that an exporter names.

The registry stands here, below the exporters, because artefacts are opened where no exporter can run. It is
`kerasgen.exporters.REGISTRY` too, and imports an exporter's class when that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kerasgen.errors import ExportArgumentError, KerasgenError, PluginLoadError
from kerasgen.plugins import DISTRIBUTION, Registry

if TYPE_CHECKING:
    from kerasgen.exporters.base import Exporter

REGISTRY: Registry[Exporter] = Registry(
    "kerasgen.exporters", contract="kerasgen.exporters.base:Exporter", noun="exporter", error=ExportArgumentError
)
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def runtime_of(exporter: str) -> str | None:
    """Return the `"module:callable"` that opens what an exporter wrote; None if no registered exporter has one.

    Raises:
        PluginError: the exporter's package is at fault.
    """
    if exporter not in REGISTRY.names():
        return None
    named: Any = REGISTRY.get(exporter).runtime
    if named is not None and (not isinstance(named, str) or not _OBJECT.fullmatch(named)):
        raise _fault(exporter, f"`runtime` must be None or text such as 'package.module:Class'. Received: {named!r}")
    return named


def opener(exporter: str, named: str) -> Callable[..., Any]:
    """Import what opens an artefact.

    Args:
        exporter: the name of the exporter that wrote it.
        named: what `runtime_of` returned.

    Raises:
        PluginLoadError: the package can't be imported, or has nothing callable there.
    """
    module, _, attribute = named.partition(":")
    try:
        target = getattr(import_module(module), attribute)
    except KerasgenError:
        raise
    except (Exception, SystemExit) as cause:  # whatever a package does as it is imported
        if REGISTRY.distribution(exporter) == DISTRIBUTION and isinstance(cause, ImportError):
            raise
        raise _fault(exporter, f"{named} can't be imported: {type(cause).__name__}: {cause}") from cause
    if not callable(target):
        raise _fault(exporter, f"{named} must be a class or a function. Received: {target!r}")
    opens: Callable[..., Any] = target
    return opens


def runnable() -> list[str]:
    """Return the built-in exporters whose artefacts kerasgen runs."""
    return [name for name in REGISTRY.built_ins() if runtime_of(name) is not None]


def has_runtime(report: Mapping[str, Any]) -> bool:
    """Return whether an artefact's JSON names an exporter that has a runtime."""
    name = report.get("exporter")
    return isinstance(name, str) and runtime_of(name) is not None


def _fault(exporter: str, problem: str) -> PluginLoadError:
    package = REGISTRY.distribution(exporter)
    return PluginLoadError(
        f"What the exporter {exporter!r} of the package {package!r} writes can't be opened: {problem}.",
        distribution=package,
    )


def check_runtime(exporter: str, runtime: Any) -> None:
    """Check what an opener returned.

    Raises:
        PluginLoadError: it is no `Runtime`.
    """
    from kerasgen.runtime.base import Runtime

    if not isinstance(runtime, Runtime):
        raise _fault(exporter, f"its runtime must be a kerasgen.runtime.Runtime. Received: {runtime!r}")
