"""A transformers-format model of an architecture with a table of names is read weight for weight.

It becomes KerasHub's model where KerasHub's layers compute what the model says, and a container of weights elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ModelArgumentError, ModelFormatError
from kerasgen.models import quantized_base
from kerasgen.models.architectures import Architecture, tensors
from kerasgen.models.transformers_tensors import Tensors


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
    """Return the model whose logits are those of a transformers-format model, as `networks.build` does.

    Args:
        architecture: of the model.
        preset: a directory or hub address that holds safetensors.
        settings: as `transformers_settings.settings` returns them.

    Raises:
        ModelFormatError: as `describe`, or a tensor is missing, unknown, or has another shape than the settings say,
            or a head that should be tied to the embeddings is not.
    """
    config, prefixes = describe(architecture, preset, settings), architecture.transformers_prefixes
    with Tensors(preset, prefixes=prefixes, other_names=architecture.transformers_other_names) as source:
        architecture = _as_stored(architecture, config, source)
        wanted = {
            name.removeprefix(prefixes[0]): tensor.shape
            for tensor in _tensors(architecture, config)
            for name in tensor.names
        }
        names = {part.name: f"{part.transformers}.weight" for part in architecture.parts}
        head, table = names.get("head", "lm_head.weight"), names["embedding.tokens"]
        if config.tied_head and head in source:
            source.check_tied(head, source.take(table, wanted[table]))
        source.check_all_read(besides=architecture.transformers_ignored, later=wanted)
        from kerasgen.models import networks

        as_stored = quantized_base.loaded_as() == quantized_base.HALF
        dropout, length = architecture.transformers_dropout, settings.get("max_position_embeddings")
        return networks.build(
            architecture,
            config,
            lambda name, shape: source.take(name.removeprefix(prefixes[0]), shape, as_stored=as_stored),
            "transformers",
            context_length=length if isinstance(length, int) else None,
            **({"dropout": settings[dropout]} if dropout else {}),
        )


def _as_stored(architecture: Architecture, config: DecoderConfig, source: Tensors) -> Architecture:
    """The architecture whose names a file has: expert by expert, or all experts of a layer together."""
    together, prefix = architecture.with_experts_together(), architecture.transformers_prefixes[0]
    own, other = (
        {name.removeprefix(prefix) for tensor in _tensors(known, config) for name in tensor.names}
        for known in (architecture, together)
    )
    return together if any(name in source for name in other - own) else architecture


def _tensors(architecture: Architecture, config: DecoderConfig) -> list[tensors.Tensor]:
    return list(tensors.tensors(architecture, config, "transformers"))
