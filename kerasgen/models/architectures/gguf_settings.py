"""Convert a decoder's settings to llama.cpp's GGUF keys and back. Imports NumPy only.

The keys are llama.cpp's own, so a reader needs nothing from kerasgen. Rotary frequencies that are scaled one by one, as
Llama 3.1's are, have no key: llama.cpp takes a tensor of what each is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from kerasgen.decoder import positions
from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.rotary_scaling import LinearScaling, Llama3Scaling, LongRopeScaling
from kerasgen.errors import ExportArgumentError, ModelArgumentError
from kerasgen.models.architectures.base import Architecture, differing
from kerasgen.models.architectures.config_rules import ROTARY, ConfigRules
from kerasgen.models.architectures.gguf_file_keys import (
    ATTENTION_FACTOR,
    EXPERT_COUNT,
    EXPERT_USED_COUNT,
    FileKeys,
    shortest,
)

FREQUENCY_FACTORS: Final = "rope_freqs.weight"
"""The tensor of what each rotary frequency is divided by."""
LONG_ROPE_FACTORS: Final = ("rope_factors_short.weight", "rope_factors_long.weight")
"""The tensors of LongRoPE's factors: of texts within the trained length, and of longer ones."""
HEAD: Final = "output.weight"
"""The tensor of an output layer of its own; without it llama.cpp predicts with the embeddings."""

_ARCHITECTURE: Final = "general.architecture"

# Of experts, and what transformers calls it, by one of two names.
_OF_EXPERTS: Final = {
    EXPERT_COUNT: ("num_experts", "num_local_experts"),
    EXPERT_USED_COUNT: ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
}

_EPSILON: Final = {
    "layer_norm": "attention.layer_norm_epsilon",
    "rms": "attention.layer_norm_rms_epsilon",
    "rms_plus_one": "attention.layer_norm_rms_epsilon",
}
# Numbers that transformers keeps too, under these names.
_ALIKE: Final = {
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
    "use_parallel_residual": "use_parallel_residual",
}

_WHOLE_HEADS: Final = ("llama", "falcon")  # of which llama.cpp loads no file with another number of rotated dimensions

Value: TypeAlias = int | float | str | bool


def keys(architecture: Architecture, config: DecoderConfig) -> dict[str, Value]:
    """Return what a file says of a decoder, by llama.cpp's keys without the architecture's name in front.

    Args:
        architecture: that llama.cpp runs.
        config: with a `max_sequence_length`.

    Raises:
        ExportArgumentError: llama.cpp has no key for how its positions are scaled, or transformers none for a trait.
    """
    attention = config.attention
    assert config.max_sequence_length is not None
    values: dict[str, Value] = {
        "block_count": config.num_layers,
        "context_length": config.max_sequence_length,
        "embedding_length": config.hidden_dim,
        "feed_forward_length": config.feedforward.intermediate_dim,
        "attention.head_count": attention.num_query_heads,
        _EPSILON[config.norm.kind]: config.norm.epsilon,
    }
    if isinstance(config.positions, RotaryPositions):
        scaling = config.positions.scaling
        values |= {
            "vocab_size": config.vocabulary_size,
            "attention.head_count_kv": attention.num_key_value_heads,
            "rope.dimension_count": config.positions.rotated_dim(attention.head_dim),
            "rope.freq_base": config.positions.base,
        }
        if attention.query_dim != config.hidden_dim:
            values |= {"attention.key_length": attention.head_dim, "attention.value_length": attention.head_dim}
        if isinstance(scaling, LinearScaling):
            values |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
        elif scaling is not None and frequency_factors(config) is None:
            raise ExportArgumentError(
                f"a GGUF file has no place for rotary positions of the kind {type(scaling).__name__}"
            )
    try:
        settings = architecture.settings(config)
    except ModelArgumentError as cause:
        raise ExportArgumentError(f"The model can't be said in a GGUF file: {cause}") from cause
    values |= {key: settings[name] for key, names in _OF_EXPERTS.items() for name in names if name in settings}
    return values | {key: settings[name] for key, name in _ALIKE.items() if settings.get(name) is not None}


def check(architecture: Architecture, config: DecoderConfig) -> DecoderConfig:
    """Check, before any work, that llama.cpp computes a decoder by what a file can say of it.

    Args:
        architecture: that llama.cpp runs.
        config: with a `max_sequence_length`.

    Returns:
        The description to write: the same, without windows that texts of this length never fill.

    Raises:
        ExportArgumentError: it computes something else.
    """
    wanted = _without_wide_windows(config)
    left = _computed_otherwise(architecture, wanted)
    if not left:
        return wanted
    do = "The exporter 'transformers' writes this model."
    shortest = min((window for window in config.attention.windows if window), default=None)
    within = _without_wide_windows(replace(config, max_sequence_length=shortest))
    if shortest and not _computed_otherwise(architecture, within):
        do = f"Within its windows it computes the same: max_sequence_length={shortest} exports that. {do}"
    raise ExportArgumentError(
        f"llama.cpp computes something else of what it calls {architecture.gguf!r}: {'; '.join(left)}. {do}"
    )


def _without_wide_windows(config: DecoderConfig) -> DecoderConfig:
    """The description without windows of the length of its texts or more, which change nothing."""
    longest = config.max_sequence_length or 0
    windows = tuple(window if window and window < longest else None for window in config.attention.windows)
    return replace(config, attention=replace(config.attention, windows=windows if any(windows) else ()))


def _computed_otherwise(architecture: Architecture, wanted: DecoderConfig) -> list[str]:
    """What llama.cpp computes otherwise, or why that can't be said."""
    try:
        wanted = _in_whole_dimensions(wanted)
        computed = stored(architecture, wanted)
        if frequency_factors(wanted) is not None:  # a tensor of what each frequency is divided by says all
            wanted, computed = (_unscaled(each) for each in (wanted, computed))
        left = list(differing(wanted, computed))
    except (ModelArgumentError, ValueError) as cause:
        left = [str(cause)]
    # ggml's GELU is the approximate one, whatever the model's is, and nobody trains by a file.
    alike = ("architecture=", "feedforward.activation='gelu", "feedforward.experts.router_loss=")
    return [trait for trait in left if not trait.startswith(alike)]


def _in_whole_dimensions(config: DecoderConfig) -> DecoderConfig:
    """The description whose rotary fraction is that of the dimensions it rotates, for a file says their number."""
    kind, head_dim = config.positions, config.attention.head_dim
    if not isinstance(kind, RotaryPositions):
        return config
    return replace(config, positions=replace(kind, fraction=_fraction(kind.rotated_dim(head_dim), head_dim)))


def _fraction(rotated: int, head_dim: int) -> float:
    """The fraction of a head's dimensions of which `RotaryPositions.rotated_dim` makes their number again."""
    share = rotated / head_dim
    return share if int(head_dim * share) == rotated else math.nextafter(share, 1.0)


def _unscaled(config: DecoderConfig) -> DecoderConfig:
    assert isinstance(config.positions, RotaryPositions)
    return replace(config, positions=replace(config.positions, scaling=None))


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


def architecture_of(says: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a file names.

    Raises:
        ValueError: it is none of those that are read.
    """
    from kerasgen.models import architectures

    name = says.get(_ARCHITECTURE)
    has_experts = says.get(f"{name}.{EXPERT_COUNT}", 0) != 0
    known = architectures.named_in_gguf(name, experts=has_experts) if isinstance(name, str) else None
    if known is None:
        names = ", ".join(repr(each) for each in architectures.gguf_names())
        kind = f"{name!r} with experts" if has_experts and name in architectures.gguf_names() else repr(name)
        raise ValueError(f"its architecture is {kind}, and {names} are read")
    return known


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
    file = FileKeys(architecture, says)
    length = file.size("context_length")
    settings = _settings(file, architecture, tensors, vocabulary_size)
    try:
        config = architecture.read_config({**settings, **architecture.gguf_settings(settings, tensors)})
    except (ModelArgumentError, KeyError, TypeError) as cause:
        raise ValueError(f"what it says makes no decoder: {cause}") from cause
    file.check_used()
    return replace(config, max_sequence_length=length)


def _settings(
    file: FileKeys, architecture: Architecture, tensors: Mapping[str, Any], vocabulary_size: int
) -> dict[str, Any]:
    """What a file says, as transformers calls it."""
    heads, width, rules = file.size("attention.head_count"), file.size("embedding_length"), architecture.config_rules
    if "attention.key_length" not in file and width % heads:
        raise ValueError(f"its width {width} is no multiple of its {heads} heads")
    head_dim = file.size("attention.key_length", width // heads)
    file.require("attention.value_length", head_dim)
    file.require("vocab_size", vocabulary_size)
    # llama.cpp's converter writes both epsilons where a `config.json` has both, as StarCoder2 15B's has.
    kinds = ("rms", "layer_norm") if "rms_norm_eps" in architecture.keys else ("layer_norm", "rms")
    epsilon, unused = (_EPSILON[kind] for kind in kinds)
    file.take(unused, 0.0)
    biased = next((f"blk.0.attn_{each}.bias" for each in ("q", "qkv") if f"blk.0.attn_{each}.bias" in tensors), None)
    values: dict[str, Any] = {
        "vocabulary_size": vocabulary_size,
        "num_layers": file.size("block_count"),
        "hidden_dim": width,
        "max_sequence_length": file.size("context_length"),
        "attention.num_query_heads": heads,
        "attention.num_key_value_heads": file.size("attention.head_count_kv", heads),
        "attention.head_dim": head_dim,
        "attention.query_bias": biased is not None,
        "feedforward.intermediate_dim": file.size("feed_forward_length"),
        "norm.epsilon": file.number(epsilon),
        "tied_head": HEAD not in tensors,
    }
    renamed = {key: values[path] for key, path in architecture.keys.items() if path in values}
    alike = {name: file.take(key) for key, name in _ALIKE.items() if key in file and name in rules.defaults}
    numbers = {name: shortest(value) if isinstance(value, float) else value for name, value in alike.items()}
    has_bias = biased is not None
    biases = {"attention_bias": has_bias, "qkv_bias": has_bias, "mlp_bias": "blk.0.ffn_up.bias" in tensors}
    biases = {name: value for name, value in biases.items() if name in rules.defaults}
    renamed |= {name: file.size(key) for key, names in _OF_EXPERTS.items() for name in names if name in rules.sizes}
    settings = (
        dict(rules.defaults) | biases | numbers | renamed | {"num_kv_heads": values["attention.num_key_value_heads"]}
    )
    if rules.rope_theta is not None:
        settings[ROTARY] = _rotary(file, architecture, head_dim, tensors, rules)
    return settings


def _rotary(
    file: FileKeys, architecture: Architecture, head_dim: int, tensors: Mapping[str, Any], rules: ConfigRules
) -> dict[str, RotaryPositions]:
    """The rotary positions that a file says, by kind of layer; it says those of layers that see all."""
    if architecture.gguf in _WHOLE_HEADS:
        file.require("rope.dimension_count", head_dim)
    rotated = file.size("rope.dimension_count", head_dim)
    by_kind = rules.rope_theta if isinstance(rules.rope_theta, Mapping) else {"": rules.rope_theta}
    first, *others = by_kind
    plain = RotaryPositions(file.number("rope.freq_base", 10_000.0), _fraction(rotated, head_dim))
    factors, length = tensors.get(FREQUENCY_FACTORS), file.size("context_length")
    each = [tensors[name] for name in LONG_ROPE_FACTORS if name in tensors]
    scaling = _long_rope(file, each) if each else _scaling(file)
    by_layers = {first: _scaled(plain, head_dim, length, scaling, factors)}
    return by_layers | {kind: RotaryPositions(file.number("rope.freq_base_swa", by_kind[kind])) for kind in others}


def _scaling(file: FileKeys) -> LinearScaling | None:
    kind = file.take("rope.scaling.type", "none")
    if kind == "linear":
        return LinearScaling(file.number("rope.scaling.factor"))
    if kind != "none":
        raise ValueError(f"its rope.scaling.type is {kind!r}, and 'linear' or none is read")
    return None


def _long_rope(file: FileKeys, factors: list[Any]) -> LongRopeScaling:
    """LongRoPE by its two tensors of factors, which llama.cpp chooses between by the length of its context."""
    kind = file.take("rope.scaling.type", "longrope")
    if len(factors) != len(LONG_ROPE_FACTORS) or kind not in ("longrope", "none"):
        raise ValueError(
            f"its rotary positions are of LongRoPE, which takes the tensors {' and '.join(LONG_ROPE_FACTORS)} and no "
            f"other scaling. It has {len(factors)} of them, and its rope.scaling.type is {kind!r}"
        )
    short, long = (tuple(map(shortest, each)) for each in factors)
    length = file.size("rope.scaling.original_context_length")
    return LongRopeScaling(short, long, length, file.number(ATTENTION_FACTOR, 1.0))


def stored(architecture: Architecture, config: DecoderConfig) -> DecoderConfig:
    """Return the description that `described` gives of the file of a decoder: its numbers have 32 bits."""
    from kerasgen.models import architectures
    from kerasgen.models.architectures import tensors

    assert architecture.gguf is not None
    of_file = architectures.named_in_gguf(architecture.gguf, experts=architecture.has_experts)
    assert of_file is not None
    says = {f"{architecture.gguf}.{key}": value for key, value in keys(architecture, config).items()}
    tensors_by_name: dict[str, Any] = {tensor.name: None for tensor in tensors.tensors(architecture, config, "gguf")}
    factors = frequency_factors(config)
    if factors is not None:
        tensors_by_name[FREQUENCY_FACTORS] = factors
    return described(of_file, says, tensors_by_name, config.vocabulary_size)


def _scaled(plain: RotaryPositions, head_dim: int, length: int, scaling: Any, factors: Any) -> RotaryPositions:
    """Positions with a scaling, or with that of a factor for each frequency."""
    if factors is not None:
        scaling = _llama3_of(plain, head_dim, factors)
        if scaling is None:
            each = tuple(map(float, factors))
            scaling = LongRopeScaling(each, each, original_length=length)
    return replace(plain, scaling=scaling)


def _llama3_of(plain: RotaryPositions, head_dim: int, factors: Any) -> Llama3Scaling | None:
    """The scaling of Llama 3.1's kind that divides each frequency by such a factor, or None where there is none.

    Its three lengths matter by their proportions alone: a wavelength's place between two of them grows in proportion to
    the frequency, by a slope and from a point that two frequencies give.
    """
    frequencies, _ = positions.frequencies(plain, head_dim, 1)
    factors = np.asarray(factors, np.float64)
    largest = float(factors.max())
    between = np.flatnonzero((factors > 1.001) & (factors < largest * 0.999))
    if len(between) < 2 or len(factors) != len(frequencies):
        return None
    places = (1 / factors[between] - 1 / largest) / (1 - 1 / largest)
    slope, start = np.polyfit(frequencies[between] / (2 * math.pi), places, 1)
    for low in (1.0, 2.0, round(-start * 3, 2)):  # of which Llama's is the first
        original = round(-slope * low / start) if start < 0 else 0
        if original < 1 or low <= 0:
            continue
        high = round(low - low / start, 3)
        scaling = Llama3Scaling(largest, low, high, original)
        computed, _ = positions.frequencies(replace(plain, scaling=scaling), head_dim, 1)
        if np.allclose(frequencies / computed, factors, rtol=1e-5, atol=0):
            return scaling
    return None
