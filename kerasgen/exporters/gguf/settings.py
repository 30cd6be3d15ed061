"""What a GGUF file says of a decoder beside its weights, in llama.cpp's keys, there and back. Imports NumPy only.

The keys are llama.cpp's own, so a reader needs nothing from kerasgen. Rotary frequencies that are scaled one by one, as
Llama 3.1's are, have no key: llama.cpp takes a tensor of what each is divided by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasgen.decoder import positions
from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.rotary_scaling import LinearScaling, LongRopeScaling
from kerasgen.errors import ExportArgumentError
from kerasgen.models.architectures import Architecture

FREQUENCY_FACTORS: Final = "rope_freqs.weight"
"""The tensor of what each rotary frequency is divided by."""
HEAD: Final = "output.weight"
"""The tensor of an output layer of its own; without it llama.cpp predicts with the embeddings."""

_EPSILON: Final = {"layer_norm": "attention.layer_norm_epsilon", "rms": "attention.layer_norm_rms_epsilon"}


def keys(config: DecoderConfig) -> dict[str, int | float | str]:
    """Return what a file says of a decoder, by llama.cpp's keys without the architecture's name in front.

    Args:
        config: with a `max_sequence_length`.

    Raises:
        ExportArgumentError: llama.cpp has no key for how its positions are scaled.
    """
    attention = config.attention
    assert config.max_sequence_length is not None
    found: dict[str, int | float | str] = {
        "block_count": config.num_layers,
        "context_length": config.max_sequence_length,
        "embedding_length": config.hidden_dim,
        "feed_forward_length": config.feedforward.intermediate_dim,
        "attention.head_count": attention.num_query_heads,
        _EPSILON[config.norm.kind]: config.norm.epsilon,
    }
    if isinstance(config.positions, RotaryPositions):
        scaling = config.positions.scaling
        found |= {
            "vocab_size": config.vocabulary_size,
            "attention.head_count_kv": attention.num_key_value_heads,
            "rope.dimension_count": config.positions.rotated_dim(attention.head_dim),
            "rope.freq_base": config.positions.base,
        }
        if isinstance(scaling, LinearScaling):
            found |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
        elif scaling is not None and frequency_factors(config) is None:
            raise ExportArgumentError(
                f"A GGUF file has no place for rotary positions of the kind {type(scaling).__name__}. The exporter "
                "'transformers' writes them."
            )
    return found


def frequency_factors(config: DecoderConfig) -> npt.NDArray[np.float32] | None:
    """Return what each rotary frequency is divided by, float32 `(pairs,)`, or None where no tensor is needed."""
    kind = config.positions
    if not isinstance(kind, RotaryPositions) or kind.scaling is None or isinstance(kind.scaling, LinearScaling):
        return None
    lengths = (1, (config.max_sequence_length or 1) + 1)
    (short, scale), (long, _) = (positions.frequencies(kind, config.attention.head_dim, length) for length in lengths)
    if scale != 1.0 or not np.array_equal(short, long):  # which depends on more than the frequency
        return None
    plain, _ = positions.frequencies(replace(kind, scaling=None), config.attention.head_dim, 1)
    return (plain / short).astype(np.float32)


def described(
    architecture: Architecture, says: Mapping[str, Any], tensors: Mapping[str, Any], vocabulary_size: int
) -> DecoderConfig:
    """Return the description of the decoder that a file holds.

    Args:
        architecture: that the file names.
        says: what it says, by its keys.
        tensors: by their names.
        vocabulary_size: tokens that it lists.

    Raises:
        KeyError: a key is missing.
        ValueError: it scales rotary positions in a way that is not read.
    """
    prefix = f"{architecture.gguf}."
    said = {key.removeprefix(prefix): value for key, value in says.items() if key.startswith(prefix)}
    heads = said["attention.head_count"]
    epsilon = next((key for key in _EPSILON.values() if key in said), _EPSILON["layer_norm"])
    config = architecture.describe(
        {
            "vocabulary_size": vocabulary_size,
            "num_layers": said["block_count"],
            "num_heads": heads,
            "num_query_heads": heads,
            "num_key_value_heads": said.get("attention.head_count_kv", heads),
            "hidden_dim": said["embedding_length"],
            "intermediate_dim": said["feed_forward_length"],
            "max_sequence_length": said["context_length"],
            "layer_norm_epsilon": said[epsilon],
            "rope_max_wavelength": said.get("rope.freq_base", 10_000.0),
            "tie_word_embeddings": HEAD not in tensors,
        }
    )
    config = replace(config, max_sequence_length=said["context_length"])
    if not isinstance(config.positions, RotaryPositions):
        return config
    rotated = config.positions.rotated_dim(config.attention.head_dim)
    if said.get("rope.dimension_count", rotated) != rotated:
        raise ValueError(f"{said['rope.dimension_count']} dimensions of a head are rotated, and not {rotated}")
    kind, scaling = said.get("rope.scaling.type", "none"), None
    if kind == "linear":
        scaling = LinearScaling(said["rope.scaling.factor"])
    elif kind != "none":
        raise ValueError(f"its rope.scaling.type is {kind!r}")
    return _scaled(config, scaling, tensors.get(FREQUENCY_FACTORS))


def stored(config: DecoderConfig) -> DecoderConfig:
    """Return the description that `described` gives of the file of a decoder: its numbers have 32 bits."""
    config = replace(config, norm=replace(config.norm, epsilon=float(np.float32(config.norm.epsilon))))
    if not isinstance(config.positions, RotaryPositions):
        return config
    factors, scaling = frequency_factors(config), config.positions.scaling
    rotary = replace(config.positions, base=float(np.float32(config.positions.base)))
    if isinstance(scaling, LinearScaling):
        scaling = LinearScaling(float(np.float32(scaling.factor)))
    return _scaled(replace(config, positions=rotary), None if factors is not None else scaling, factors)


def _scaled(config: DecoderConfig, scaling: Any, factors: Any) -> DecoderConfig:
    """The description with a scaling, or with a factor for each frequency, at every length."""
    assert isinstance(config.positions, RotaryPositions)
    if factors is not None:
        each = tuple(map(float, factors))
        scaling = LongRopeScaling(each, each, original_length=config.max_sequence_length or 1)
    return replace(config, positions=replace(config.positions, scaling=scaling))
