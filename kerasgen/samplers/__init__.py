"""Samplers: how the next token is chosen. `names()`, `get(name)`, `describe(name)`, `create("top_k:k=40")`."""

from __future__ import annotations

from kerasgen.errors import SamplerArgumentError
from kerasgen.plugins import Registry
from kerasgen.samplers.base import SamplerSpec

REGISTRY: Registry[SamplerSpec] = Registry(
    "kerasgen.samplers", contract="kerasgen.samplers.base:SamplerSpec", noun="sampler", error=SamplerArgumentError
)
names = REGISTRY.names
get = REGISTRY.get
describe = REGISTRY.describe
create = REGISTRY.create

__all__ = ["REGISTRY", "SamplerSpec", "create", "describe", "get", "names"]
