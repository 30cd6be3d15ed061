"""What a GGUF file says of a decoder beside its weights, in llama.cpp's keys, there and back. Imports NumPy only.

The keys are llama.cpp's own, so a reader needs nothing from kerasgen. Rotary frequencies that are scaled one by one, as
Llama 3.1's are, have no key: llama.cpp takes a tensor of what each is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasgen.decoder import positions
from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.rotary_scaling import LinearScaling, Llama3Scaling, LongRopeScaling
from kerasgen.errors import ExportArgumentError
from kerasgen.models.architectures.base import Architecture

FREQUENCY_FACTORS: Final = "rope_freqs.weight"
"""The tensor of what each rotary frequency is divided by."""
HEAD: Final = "output.weight"
"""The tensor of an output layer of its own; without it llama.cpp predicts with the embeddings."""

# What changes nothing in what a decoder computes, and what must be so where a file says it at all.
_BOOKKEEPING: Final = ("tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length")
_AS_USUAL: Final[Mapping[str, Any]] = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "pooling_type": 0,
    "use_parallel_residual": False,
}

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
        tensors: by their names; of those that aren't small, only that they are there matters.
        vocabulary_size: rows of its table of tokens.

    Raises:
        ValueError: a key is missing, has another value than this decoder can have, or is not used by its description.
    """
    said = _Said(architecture, says)
    config = replace(
        architecture.describe(_settings(said, tensors, vocabulary_size)),
        max_sequence_length=said.size("context_length"),
    )
    if isinstance(config.positions, RotaryPositions):
        config = _scaled(config, _scaling(said, config), tensors.get(FREQUENCY_FACTORS))
    said.check_used()
    return config


def _settings(said: _Said, tensors: Mapping[str, Any], vocabulary_size: int) -> dict[str, Any]:
    """What a file says, as KerasHub's backbone calls it."""
    heads, width = said.size("attention.head_count"), said.size("embedding_length")
    if width % heads:
        raise ValueError(f"its width {width} is no multiple of its {heads} heads")
    for key in ("attention.key_length", "attention.value_length"):
        said.require(key, width // heads)
    said.require("vocab_size", vocabulary_size)
    epsilon = next((key for key in _EPSILON.values() if key in said), _EPSILON["layer_norm"])
    return {
        "vocabulary_size": vocabulary_size,
        "num_layers": said.size("block_count"),
        "num_heads": heads,
        "num_query_heads": heads,
        "num_key_value_heads": said.size("attention.head_count_kv", heads),
        "hidden_dim": width,
        "intermediate_dim": said.size("feed_forward_length"),
        "max_sequence_length": said.size("context_length"),
        "layer_norm_epsilon": said.number(epsilon),
        "rope_max_wavelength": said.number("rope.freq_base", 10_000.0),
        "tie_word_embeddings": HEAD not in tensors,
    }


def _scaling(said: _Said, config: DecoderConfig) -> LinearScaling | None:
    assert isinstance(config.positions, RotaryPositions)
    said.require("rope.dimension_count", config.positions.rotated_dim(config.attention.head_dim))
    kind = said.take("rope.scaling.type", "none")
    if kind == "linear":
        return LinearScaling(said.number("rope.scaling.factor"))
    if kind != "none":
        raise ValueError(f"its rope.scaling.type is {kind!r}, and 'linear' or none is read")
    return None


class _Said:
    """What a file says of an architecture, and which of it has been used."""

    def __init__(self, architecture: Architecture, says: Mapping[str, Any]) -> None:
        self._prefix = f"{architecture.gguf}."
        self._said = {key.removeprefix(self._prefix): says[key] for key in says if key.startswith(self._prefix)}
        self._used: set[str] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._said

    def take(self, key: str, default: Any = None) -> Any:
        self._used.add(key)
        if key not in self._said and default is None:
            raise ValueError(f"it does not say {self._prefix + key!r}")
        return self._said.get(key, default)

    def size(self, key: str, default: int | None = None) -> int:
        found = self.take(key, default)
        if isinstance(found, np.ndarray) and len(found) and (found == found[0]).all():  # one for each layer
            found = found[0].item()
        if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < 1 << 31:
            raise ValueError(f"its {self._prefix + key!r} must be a whole number from 1. It is {found!r:.80}")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        found = self.take(key, default)
        if not isinstance(found, int | float) or isinstance(found, bool) or not 0 < found < math.inf:
            raise ValueError(f"its {self._prefix + key!r} must be a number above 0. It is {found!r:.80}")
        return _shortest(found)

    def require(self, key: str, wanted: Any) -> None:
        """Check what a file may say, and that it says nothing else."""
        found = self.take(key, wanted)
        if found is not wanted and (isinstance(found, np.ndarray) or found != wanted):
            raise ValueError(f"its {self._prefix + key!r} is {found!r:.80}, and this decoder computes with {wanted!r}")

    def check_used(self) -> None:
        for key, value in _AS_USUAL.items():
            self.require(key, value)
        left = [key for key in self._said if key not in self._used and key not in _BOOKKEEPING]
        if left:
            raise ValueError(
                f"it says {self._prefix + left[0]!r} = {self._said[left[0]]!r:.80}, which the description of this "
                "decoder does not use: without it, it would be another model"
            )


def _shortest(number: float) -> float:
    """The number of the fewest digits that a file's 32 bits stand for: 1e-05 is kept as 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def stored(config: DecoderConfig) -> DecoderConfig:
    """Return the description that `described` gives of the file of a decoder: its numbers have 32 bits."""
    config = replace(config, norm=replace(config.norm, epsilon=_shortest(config.norm.epsilon)))
    if not isinstance(config.positions, RotaryPositions):
        return config
    factors, scaling = frequency_factors(config), config.positions.scaling
    rotary = replace(config.positions, base=_shortest(config.positions.base))
    if isinstance(scaling, LinearScaling):
        scaling = LinearScaling(_shortest(scaling.factor))
    return _scaled(replace(config, positions=rotary), scaling, factors)


def _scaled(config: DecoderConfig, scaling: Any, factors: Any) -> DecoderConfig:
    """The description with a scaling, or with that of a factor for each frequency."""
    assert isinstance(config.positions, RotaryPositions)
    if factors is not None:
        plain = replace(config.positions, scaling=None)
        scaling = _llama3_of(plain, config.attention.head_dim, factors)
        if scaling is None:
            each = tuple(map(float, factors))
            scaling = LongRopeScaling(each, each, original_length=config.max_sequence_length or 1)
    return replace(config, positions=replace(config.positions, scaling=scaling))


def _llama3_of(plain: RotaryPositions, head_dim: int, factors: Any) -> Llama3Scaling | None:
    """The scaling of Llama 3.1's kind that divides each frequency by such a factor, or None where there is none.

    Its three lengths matter by their proportions alone: a wavelength's place between two of them grows in proportion to
    the frequency, by a slope and from a point that two frequencies give.
    """
    frequencies, _ = positions.frequencies(plain, head_dim, 1)
    factors = np.asarray(factors, np.float64)
    most = float(factors.max())
    between = np.flatnonzero((factors > 1.001) & (factors < most * 0.999))
    if len(between) < 2 or len(factors) != len(frequencies):
        return None
    shares = (1 / factors[between] - 1 / most) / (1 - 1 / most)
    slope, start = np.polyfit(frequencies[between] / (2 * math.pi), shares, 1)
    for low in (1.0, 2.0, round(-start * 3, 2)):  # of which Llama's is the first
        original = round(-slope * low / start) if start < 0 else 0
        if original < 1 or low <= 0:
            continue
        high = round(low - low / start, 3)
        found = Llama3Scaling(most, low, high, original)
        computed, _ = positions.frequencies(replace(plain, scaling=found), head_dim, 1)
        if np.allclose(frequencies / computed, factors, rtol=1e-5, atol=0):
            return found
    return None
