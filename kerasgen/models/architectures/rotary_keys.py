"""Rotary positions as a `config.json` of transformers says them, there and back. Imports the standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from kerasgen.decoder.config import DecoderConfig, Positions, RotaryPositions
from kerasgen.decoder.rotary_scaling import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RotaryScaling,
    YarnScaling,
)
from kerasgen.errors import ModelArgumentError

ORIGINAL: Final = "original_max_position_embeddings"

KINDS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", ORIGINAL), ()),
    "yarn": (
        ("factor",),
        (ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": (("short_factor", "long_factor"), (ORIGINAL, "factor", "attention_factor")),
}
"""For each `rope_type` the keys that it must have, and those that it may have."""


def read(said: Mapping[str, Any], max_length: int | None) -> RotaryPositions:
    """Return the positions that a configuration says.

    Args:
        said: `rope_type`, `rope_theta`, `partial_rotary_factor` and the keys of the type, which has those that it must.
        max_length: the configuration's `max_position_embeddings`, if it says any.

    Raises:
        ModelArgumentError: a value is none of its kind, or a length is missing.
    """
    scaling = _scaling(said, max_length)
    return RotaryPositions(float(said["rope_theta"]), float(said["partial_rotary_factor"]), scaling=scaling)


def _scaling(said: Mapping[str, Any], max_length: int | None) -> RotaryScaling | None:
    kind = said["rope_type"]
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(float(said["factor"]))
    original = (None if kind == "dynamic" else said.get(ORIGINAL)) or max_length
    if original is None:
        raise ModelArgumentError(
            f"Rotary positions of the kind {kind!r} need a length that the model was trained with: {ORIGINAL!r} or "
            "'max_position_embeddings'. Received: neither."
        )
    if kind == "dynamic":
        return DynamicScaling(float(said["factor"]), original)
    if kind == "llama3":
        low, high = float(said["low_freq_factor"]), float(said["high_freq_factor"])
        return Llama3Scaling(float(said["factor"]), low, high, original)
    if kind == "yarn":
        return _yarn(said, original, max_length)
    factor = said.get("factor") or (max_length or original) / original
    attention = said.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = (tuple(map(float, said[name])) for name in ("short_factor", "long_factor"))
    return LongRopeScaling(short, long, original, attention)


def _yarn(said: Mapping[str, Any], original: int, max_length: int | None) -> YarnScaling:
    attention = said.get("attention_factor")
    factor = float(said["factor"] if said["factor"] is not None else (max_length or original) / original)
    scales = [float(said.get(key) or 0) for key in ("mscale", "mscale_all_dim")]
    if attention is None and all(scales):  # DeepSeek's way of saying it
        one, other = (0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0 for scale in scales)
        attention = one / other
    return YarnScaling(
        factor,
        original,
        beta_fast=float(said.get("beta_fast") or 32),
        beta_slow=float(said.get("beta_slow") or 1),
        attention_factor=attention,
        truncate=bool(said.get("truncate", True)),
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    """Return the keys that say a decoder's rotary positions, as every version of transformers reads them.

    Raises:
        ModelArgumentError: neighbours are rotated, which transformers does of no model with such keys.
    """
    positions = config.positions
    assert isinstance(positions, RotaryPositions)
    if positions.interleaved:
        raise ModelArgumentError("Rotary positions of neighbours have no key in a 'config.json'.")
    keys = {"rope_theta": positions.base, "rope_scaling": scaling(positions.scaling)}
    if isinstance(positions.scaling, DynamicScaling):
        keys["max_position_embeddings"] = positions.scaling.original_length
    return keys | ({} if positions.fraction == 1.0 else {"partial_rotary_factor": positions.fraction})


def scaling(kind: RotaryScaling | None) -> dict[str, Any] | None:
    """Return what a `rope_scaling` says, or None for no scaling."""
    if kind is None:
        return None
    if isinstance(kind, LinearScaling):
        return {"rope_type": "linear", "factor": kind.factor}
    if isinstance(kind, DynamicScaling):
        return {"rope_type": "dynamic", "factor": kind.factor}
    if isinstance(kind, Llama3Scaling):
        return {
            "rope_type": "llama3",
            "factor": kind.factor,
            "low_freq_factor": kind.low_frequency_factor,
            "high_freq_factor": kind.high_frequency_factor,
            ORIGINAL: kind.original_length,
        }
    if isinstance(kind, YarnScaling):
        keys = {"rope_type": "yarn", "factor": kind.factor, ORIGINAL: kind.original_length}
        keys |= {"beta_fast": kind.beta_fast, "beta_slow": kind.beta_slow, "truncate": kind.truncate}
        return keys | ({} if kind.attention_factor is None else {"attention_factor": kind.attention_factor})
    return {
        "rope_type": "longrope",
        "short_factor": list(kind.short_factors),
        "long_factor": list(kind.long_factors),
        ORIGINAL: kind.original_length,
        "attention_factor": kind.attention_factor,
    }


def linear_factor(positions: Positions) -> float:
    """Return what positions are divided by, 1 for none: all the scaling that most of KerasHub's layers know."""
    scaled = positions.scaling if isinstance(positions, RotaryPositions) else None
    return scaled.factor if isinstance(scaled, LinearScaling) else 1.0
