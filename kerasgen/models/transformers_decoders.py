"""A transformers-format model of an architecture with a table of names is read weight for weight.

It becomes KerasHub's model where KerasHub's layers compute what the model says, and a container of weights elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ModelArgumentError, ModelFormatError
from kerasgen.models.architectures import Architecture, keras_weights, tensors
from kerasgen.models.transformers_tensors import Tensors

_LONG = 1 << 17  # tokens that a model is made for, where it does not say how many


def describe(architecture: Architecture, preset: str, settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of the decoder that a configuration says.

    Args:
        architecture: of the model.
        preset: a directory or hub address, for messages.
        settings: as `transformers_settings.settings` returns them.

    Raises:
        ModelFormatError: the settings don't fit each other.
    """
    try:
        return architecture.read_config(settings)
    except (ModelArgumentError, ArithmeticError, KeyError, TypeError, ValueError) as cause:
        raise ModelFormatError(
            f"The {architecture.name} model {preset!r} has settings that don't fit each other: {cause}"
        ) from cause


def convert(architecture: Architecture, preset: str, settings: Mapping[str, Any]) -> Any:
    """Return the model whose logits are those of a transformers-format model, as `network` does.

    Args:
        architecture: of the model.
        preset: a directory or hub address that holds safetensors.
        settings: as `transformers_settings.settings` returns them.

    Raises:
        ModelFormatError: as `describe`, or a tensor is missing, unknown, or has another shape than the settings say,
            or a head that should be tied to the embeddings is not.
    """
    config = describe(architecture, preset, settings)
    prefixes, others = architecture.transformers_prefixes, architecture.transformers_other_names
    with Tensors(preset, prefixes=prefixes, other_names=others) as source:
        weights = tensors.read(architecture, config, source.take, "transformers")
        if config.tied_head:
            head = next((part.transformers for part in architecture.parts if part.name == "head"), "lm_head")
            source.check_tied(f"{head}.weight", weights["embedding"]["tokens"])
        source.check_all_read(besides=architecture.transformers_ignored)
    dropout = architecture.transformers_dropout
    length = settings.get("max_position_embeddings")
    given = {"dropout": settings[dropout]} if dropout else {}
    return network(architecture, config, weights, context_length=length if isinstance(length, int) else None, **given)


def network(
    architecture: Architecture,
    config: DecoderConfig,
    weights: Weights,
    *,
    context_length: int | None = None,
    **arguments: Any,
) -> Any:
    """Return KerasHub's float32 causal model of a decoder, or a `Container` where `hub_reason` says why not.

    Args:
        architecture: of the decoder.
        config: its description.
        weights: by name.
        context_length: as in `Container`.
        **arguments: further ones of KerasHub's backbone class, such as `dropout`.
    """
    if hub_reason(architecture, config):
        from kerasgen.models.container import Container

        container = Container(config, context_length=context_length)
        container.assign(weights)
        return container
    import keras_hub

    assert architecture.backbone is not None
    length = {architecture.length_argument: context_length or _LONG} if architecture.length_argument else {}
    made = length | architecture.backbone_arguments(config) | arguments
    backbone = getattr(keras_hub.models, architecture.backbone)(**made, dtype="float32")
    keras_weights.assign(architecture, backbone, weights)
    return getattr(keras_hub.models, architecture.causal_lm)(backbone=backbone, preprocessor=None)


def hub_reason(architecture: Architecture, config: DecoderConfig) -> str:
    """Return why KerasHub's class can't hold a decoder, a sentence; empty if it can."""
    if architecture.backbone is None:
        return f"KerasHub has no class for the architecture {architecture.name!r}."
    missing = architecture.missing_in_keras_hub(config)
    return f"KerasHub's {architecture.backbone} can't compute {'; '.join(missing)}." if missing else ""
