"""Resolve LoRA's targets: roles of projections and groups of roles, to a model's layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel, MaskedLanguageModel

Targets: TypeAlias = tuple[str, ...] | None
"""Roles, names of layers or of groups; None for the usual ones."""

_USUAL = ("query", "value")
ATTENTION, MLP = ("query", "key", "value", "output"), ("gate", "up", "down")
GROUPS = {"attention": ATTENTION, "mlp": MLP, "all": ATTENTION + MLP}
"""Names of several roles together."""


def resolved(model: LanguageModel, targets: Targets) -> tuple[str, ...]:
    """Return targets with each group's roles beside its name; None as the usual roles, or KerasHub's usual layers."""
    if targets is not None:
        return tuple(role for name in targets for role in (name, *GROUPS.get(name, ())))
    return _USUAL if roles(model) else tuple(model.backbone.default_lora_layer_names())


def layers(model: LanguageModel, targets: Targets) -> list[Any]:
    """Return the layers that get an adapter, in the model's order."""
    wanted, known = resolved(model, targets), roles(model)
    chosen = [layer for layer in all_layers(model) if layer.name in wanted or known.get(id(layer)) in wanted]
    return [layer for layer in chosen if takes_adapter(layer)]


def all_layers(model: LanguageModel) -> list[Any]:
    """Return every Keras layer of a model, in the model's order."""
    is_hubs = not isinstance(model, MaskedLanguageModel) and model.causal_lm is not None
    holder = model.backbone if is_hubs else model.network
    return list(holder._flatten_layers(include_self=False))


def roles(model: LanguageModel) -> dict[int, str]:
    """Return the role of each Keras layer of a block, such as `up`, by the layer's `id`."""
    return {id(layer): role for parts in blocks(model) for role, layer in parts.items()}


def of_experts(model: LanguageModel) -> Iterator[str]:
    """Yield the roles of which every expert has a kernel."""
    for parts in blocks(model):
        for role, held in parts.items():
            if len(getattr(getattr(held, "kernel", None), "shape", ())) == 3 and role in MLP:
                yield role


def blocks(model: LanguageModel) -> list[Mapping[str, Any]]:
    """Return the Keras layers of each block by their roles; nothing of a model that no table describes."""
    if isinstance(model, MaskedLanguageModel):
        return list(model.network.blocks())
    if model.container is not None:
        return list(model.container.decoder.parts["layers"])
    architecture = keras_weights.architecture_of(model.causal_lm)
    if architecture is None:
        return []
    return [keras_weights.layer_parts(architecture, block) for block in model.backbone.transformer_layers]


def takes_adapter(layer: Any) -> bool:
    """Return whether a layer is a projection that an adapter can stand beside."""
    # Keras adapts embeddings too, but keeps the thin matrices of one under other names.
    return hasattr(layer, "enable_lora") and hasattr(layer, "_kernel")
