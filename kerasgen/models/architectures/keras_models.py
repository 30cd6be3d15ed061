"""A description and the tensors of a file become a Keras model. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras_hub

from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.rotary_scaling import Llama3Scaling
from kerasgen.models import deferred_weights
from kerasgen.models.architectures import keras_weights, tensors
from kerasgen.models.architectures.base import Architecture
from kerasgen.models.architectures.tensors import Format, Take
from kerasgen.models.container import Container


def build(architecture: Architecture, config: DecoderConfig, take: Take, kind: Format) -> tuple[Any, str]:
    """Return the Keras model of a description, float32, with the weights of a file, and why it is none of KerasHub's.

    It is a `keras_hub.models.CausalLM` where KerasHub's layers compute what the description says, and a `Container`
    elsewhere. Nothing is drawn for the weights first, and each tensor is let go before the next is taken, so that a
    model takes hardly more memory than its weights meanwhile.

    Args:
        architecture: of the model.
        config: its description, which the tensors fit.
        take: returns the tensor of a name, as `tensors.read` calls it.
        kind: of the file.

    Returns:
        The model, and a sentence that is empty for KerasHub's.
    """
    settings = _arguments(architecture, config)
    with deferred_weights.deferred():
        backbone = getattr(keras_hub.models, architecture.backbone)(**settings, dtype="float32")
    computes = keras_weights.describe(architecture, backbone)
    length = config.max_sequence_length
    if replace(computes, max_sequence_length=length) == config:
        _fill(architecture, config, take, kind, dict(keras_weights.variables(architecture, backbone)))
        for variable in backbone.variables:
            deferred_weights.draw(variable)
        return getattr(keras_hub.models, architecture.causal_lm)(backbone=backbone, preprocessor=None), ""
    if isinstance(config.positions, RotaryPositions):
        config = replace(config, max_sequence_length=None)  # which rotary positions know no end of
    with deferred_weights.deferred():
        container = Container(config, context_length=length)
    _fill(architecture, config, take, kind, container.variables_by_name())
    differing = [name for name, value in vars(config).items() if getattr(computes, name) != value]
    return container, f"KerasHub's {architecture.backbone} computes with other {' and '.join(differing)}."


def _fill(
    architecture: Architecture, config: DecoderConfig, take: Take, kind: Format, waiting: Mapping[str, Any]
) -> None:
    for tensor in tensors.tensors(architecture, config, kind):
        for name, numbers in tensor.read(take(tensor.name, tensor.shape)).items():
            deferred_weights.give(waiting[name], numbers)


def _arguments(architecture: Architecture, config: DecoderConfig) -> dict[str, Any]:
    attention, positions = config.attention, config.positions
    found: dict[str, Any] = {
        "vocabulary_size": config.vocabulary_size,
        "num_layers": config.num_layers,
        "num_heads": attention.num_query_heads,
        "num_query_heads": attention.num_query_heads,
        "num_key_value_heads": attention.num_key_value_heads,
        "hidden_dim": config.hidden_dim,
        "intermediate_dim": config.feedforward.intermediate_dim,
        "max_sequence_length": config.max_sequence_length,
        "layer_norm_epsilon": config.norm.epsilon,
        "tie_word_embeddings": config.tied_head,
    }
    wanted = {*architecture.arguments, "intermediate_dim"}
    found = {name: value for name, value in found.items() if name in wanted}
    if isinstance(positions, RotaryPositions):
        found["rope_max_wavelength"] = positions.base
        if isinstance(positions.scaling, Llama3Scaling):
            found |= {
                "rope_frequency_adjustment_factor": positions.scaling.factor,
                "rope_low_freq_factor": positions.scaling.low_frequency_factor,
                "rope_high_freq_factor": positions.scaling.high_frequency_factor,
                "rope_pretraining_sequence_length": positions.scaling.original_length,
            }
    return found
