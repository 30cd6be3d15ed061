"""A transformers-format model of an architecture with a table of names becomes KerasHub's model, weight for weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ModelArgumentError, ModelFormatError
from kerasgen.models.architectures import Architecture, keras_weights, tensors
from kerasgen.models.transformers_tensors import Tensors


def describe(architecture: Architecture, preset: str, settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of the decoder that a configuration says.

    Args:
        architecture: of the model.
        preset: a directory or hub address, for messages.
        settings: as `transformers_settings.settings` returns them.

    Raises:
        ModelFormatError: the settings don't fit each other, or KerasHub's layers compute something else.
    """
    what = f"The {architecture.name} model {preset!r}"
    try:
        config = architecture.read_config(settings)
    except (ModelArgumentError, ArithmeticError, KeyError, TypeError, ValueError) as cause:
        raise ModelFormatError(f"{what} has settings that don't fit each other: {cause}") from cause
    missing = architecture.missing_in_keras_hub(config)
    if missing:
        raise ModelFormatError(
            f"{what} is no model that KerasHub's layers compute: {'; '.join(missing)}. It can't be read without "
            "changing what it says."
        )
    return config


def convert(architecture: Architecture, preset: str, settings: Mapping[str, Any]) -> Any:
    """Return the `keras_hub.models.CausalLM` whose logits are those of a transformers-format model.

    Args:
        architecture: of the model.
        preset: a directory or hub address that holds safetensors.
        settings: as `transformers_settings.settings` returns them.

    Raises:
        ModelFormatError: as `describe`, or a tensor is missing, unknown, or has another shape than the settings say,
            or a head that should be tied to the embeddings is not.
    """
    config = describe(architecture, preset, settings)
    with Tensors(preset, prefixes=architecture.transformers_prefixes) as source:
        weights = tensors.read(architecture, config, source.take, "transformers")
        if config.tied_head:
            head = next((part.transformers for part in architecture.parts if part.name == "head"), "lm_head")
            source.check_tied(f"{head}.weight", weights["embedding"]["tokens"])
        source.check_all_read(besides=architecture.transformers_ignored)
    dropout = architecture.transformers_dropout
    return model_of(architecture, config, weights, **({"dropout": settings[dropout]} if dropout else {}))


def model_of(architecture: Architecture, config: DecoderConfig, weights: Weights, **arguments: Any) -> Any:
    """Return KerasHub's float32 model of a decoder that its layers compute (`Architecture.missing_in_keras_hub`).

    Args:
        architecture: of the decoder.
        config: its description.
        weights: by name.
        **arguments: further ones of KerasHub's backbone class, such as `dropout`.
    """
    import keras_hub

    assert architecture.backbone is not None
    kind = getattr(keras_hub.models, architecture.backbone)
    backbone = kind(**architecture.backbone_arguments(config), **arguments, dtype="float32")
    keras_weights.assign(architecture, backbone, weights)
    return getattr(keras_hub.models, architecture.causal_lm)(backbone=backbone, preprocessor=None)
