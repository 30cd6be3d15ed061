"""Exporters: a model becomes an artefact. `names()`, `get(name)`, `describe(name)`, `create("name:key=value")`."""

from __future__ import annotations

from kerasgen.errors import ExportArgumentError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.plugins import Registry

REGISTRY: Registry[Exporter] = Registry(
    "kerasgen.exporters", contract="kerasgen.exporters.base:Exporter", noun="exporter", error=ExportArgumentError
)
names = REGISTRY.names
get = REGISTRY.get
describe = REGISTRY.describe
create = REGISTRY.create

__all__ = ["REGISTRY", "Artefact", "Exporter", "create", "describe", "get", "names"]
