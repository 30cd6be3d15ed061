"""Samplers: how the next token is chosen. `names()`, `get(name)`, `describe(name)`, `create("top_k:k=40")`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

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


def _run_in_keras_hub(*arguments: Any) -> Any:
    """Implement `SamplerSpec.__call__`; looked up by name, so that a spec loads Keras only where it runs."""
    return import_module("kerasgen.samplers.hub_adapter").run(*arguments)


SamplerSpec._run_in_keras_hub = staticmethod(_run_in_keras_hub)

__all__ = ["REGISTRY", "SamplerSpec", "create", "describe", "get", "names"]
