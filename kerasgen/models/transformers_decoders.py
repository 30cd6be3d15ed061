"""A transformers-format model of an architecture with a table of names becomes KerasHub's model, weight for weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.models.architectures import Architecture, keras_weights, tensors
from kerasgen.models.transformers_tensors import Tensors

_HEAD = "lm_head.weight"


def convert(architecture: Architecture, preset: str, config: Mapping[str, Any]) -> Any:
    """Return the `keras_hub.models.CausalLM` whose logits are those of a transformers-format model.

    Args:
        architecture: of the model.
        preset: a directory or hub address that holds safetensors.
        config: as `transformers_settings.settings` returns it.

    Raises:
        ModelFormatError: a tensor is missing, unknown, or has another shape than `config` says, or a head that should
            be tied to the embeddings is not.
    """
    import keras_hub

    keys = architecture.arguments
    settings = {name: config[key] for name, key in keys.items()} | dict(architecture.further_arguments(config))
    heads = "num_heads" if "num_heads" in settings else "num_query_heads"
    if settings["hidden_dim"] % settings[heads]:
        raise ModelFormatError(
            f"The {architecture.name} model {preset!r} has {keys['hidden_dim']}={settings['hidden_dim']}, which "
            f"{keys[heads]}={settings[heads]} does not divide."
        )
    with Tensors(preset, prefixes=architecture.transformers_prefixes) as source:
        backbone = getattr(keras_hub.models, architecture.backbone)(**settings, dtype="float32")
        described = keras_weights.describe(architecture, backbone)
        weights = tensors.read(architecture, described, source.take, "transformers")
        if described.tied_head:
            source.check_tied(_HEAD, weights["embedding"]["tokens"])
        source.check_all_read(besides=architecture.transformers_ignored)
    keras_weights.assign(architecture, backbone, weights)
    return getattr(keras_hub.models, architecture.causal_lm)(backbone=backbone, preprocessor=None)
