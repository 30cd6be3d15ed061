"""Corpora: where texts come from. `names()`, `get(name)`, `describe(name)`, `create("name:key=value")`."""

from __future__ import annotations

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError
from kerasgen.plugins import Registry

REGISTRY: Registry[CorpusSource] = Registry(
    "kerasgen.corpora", contract="kerasgen.corpora.base:CorpusSource", noun="corpus", error=CorpusArgumentError
)
names = REGISTRY.names
get = REGISTRY.get
describe = REGISTRY.describe
create = REGISTRY.create

__all__ = ["REGISTRY", "CorpusSource", "CorpusTally", "Document", "create", "describe", "get", "names"]
