"""A description and the tensors of a file become KerasHub's model. Imports Keras: import it late."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras_hub

from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.rotary_scaling import Llama3Scaling
from kerasgen.errors import ModelFormatError
from kerasgen.models import deferred_weights
from kerasgen.models.architectures import keras_weights, tensors
from kerasgen.models.architectures.base import Architecture
from kerasgen.models.architectures.tensors import Format, Take


def build(architecture: Architecture, config: DecoderConfig, take: Take, kind: Format) -> Any:
    """Return the `keras_hub.models.CausalLM` of a description, float32, with the weights of a file.

    Nothing is drawn for the weights first, and each tensor is let go before the next is taken, so that a model takes
    hardly more memory than its weights meanwhile.

    Args:
        architecture: of the model.
        config: its description, which the tensors fit.
        take: returns the tensor of a name, as `tensors.read` calls it.
        kind: of the file.

    Raises:
        ModelFormatError: KerasHub's class doesn't compute what the description says.
    """
    settings = _arguments(architecture, config)
    with deferred_weights.deferred():
        backbone = getattr(keras_hub.models, architecture.backbone)(**settings, dtype="float32")
    computes = keras_weights.describe(architecture, backbone)
    if replace(computes, max_sequence_length=config.max_sequence_length) != config:
        raise ModelFormatError(
            f"KerasHub's {architecture.backbone} computes {computes!r}, and the model is {config!r}."
        )
    waiting = dict(keras_weights.variables(architecture, backbone))
    for tensor in tensors.tensors(architecture, config, kind):
        for name, numbers in tensor.read(take(tensor.name, tensor.shape)).items():
            deferred_weights.give(waiting[name], numbers)
    for variable in backbone.variables:
        deferred_weights.draw(variable)
    return getattr(keras_hub.models, architecture.causal_lm)(backbone=backbone, preprocessor=None)


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
