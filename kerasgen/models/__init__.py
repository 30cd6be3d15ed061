"""Models: a KerasHub causal model with its exact tokenizer. `names()`, `get(name)`, `create("name:key=value")`."""

from __future__ import annotations

from kerasgen.errors import ModelArgumentError
from kerasgen.models.base import LanguageModel, ModelSource
from kerasgen.plugins import Registry

REGISTRY: Registry[ModelSource] = Registry(
    "kerasgen.models", contract="kerasgen.models.base:ModelSource", noun="model", error=ModelArgumentError
)
names = REGISTRY.names
get = REGISTRY.get
describe = REGISTRY.describe
create = REGISTRY.create

__all__ = ["REGISTRY", "LanguageModel", "ModelSource", "create", "describe", "get", "names"]
