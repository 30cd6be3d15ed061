"""Exporters: a model becomes an artefact. `names()`, `get(name)`, `describe(name)`, `create("name:key=value")`."""

from __future__ import annotations

from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.runtime.formats import REGISTRY

names = REGISTRY.names
get = REGISTRY.get
describe = REGISTRY.describe
create = REGISTRY.create

__all__ = ["REGISTRY", "Artefact", "Exporter", "create", "describe", "get", "names"]
