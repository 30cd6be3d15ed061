"""Five scalings of rotary frequencies, by which positions reach beyond the trained length, as frozen data.

Imports the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from kerasgen.errors import ModelArgumentError


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by a factor."""

    factor: float

    def __post_init__(self) -> None:
        require("factor", self.factor, self.factor > 0, "above 0")


@dataclass(frozen=True)
class DynamicScaling:
    """NTK-aware scaling: past the trained length the base grows with the text (transformers' `dynamic`).

    Args:
        factor: the factor of the growth.
        original_length: positions that the model was trained with.
    """

    factor: float
    original_length: int

    def __post_init__(self) -> None:
        require("factor", self.factor, self.factor > 0, "above 0")
        require("original_length", self.original_length, self.original_length > 0, "above 0")


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's: low frequencies are divided by the factor, high ones are kept, those between are blended.

    Args:
        factor: the factor of the low frequencies.
        low_frequency_factor: wavelengths above `original_length` divided by this are low frequencies.
        high_frequency_factor: wavelengths below `original_length` divided by this are high frequencies.
        original_length: positions that the model was trained with.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_length: int

    def __post_init__(self) -> None:
        require("factor", self.factor, self.factor > 0, "above 0")
        require("original_length", self.original_length, self.original_length > 0, "above 0")
        low, high = self.low_frequency_factor, self.high_frequency_factor
        require("low_frequency_factor", low, 0 < low < high, f"above 0 and below high_frequency_factor={high}")


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023): frequencies are blended by how often they turn within the trained length.

    Args:
        factor: by which the slow frequencies are divided.
        original_length: positions that the model was trained with.
        beta_fast: turns from which on a frequency is kept.
        beta_slow: turns up to which a frequency is divided.
        attention_factor: multiplies the rotation; None for the paper's 0.1 ln(factor) + 1.
        truncate: whether the blend's ends are rounded to whole dimensions.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        require("factor", self.factor, self.factor > 0, "above 0")
        require("original_length", self.original_length, self.original_length > 0, "above 0")


@dataclass(frozen=True)
class LongRopeScaling:
    """LongRoPE (Phi-3): each frequency is divided by a factor of its own, one list for short and one for long texts.

    Args:
        short_factors: for texts of at most `original_length` tokens, one for each pair of rotated dimensions.
        long_factors: for longer ones.
        original_length: positions that the model was trained with.
        attention_factor: multiplies the rotation.
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_length: int
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        short, long = len(self.short_factors), len(self.long_factors)
        require("long_factors", long, short == long > 0, f"as many as short_factors ({short})")
        require("original_length", self.original_length, self.original_length > 0, "above 0")


RotaryScaling: TypeAlias = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongRopeScaling


def require(name: str, value: Any, holds: bool, wanted: str) -> None:
    """Check a value that must be as `wanted` says.

    Raises:
        ModelArgumentError: it is not.
    """
    if not holds:
        raise ModelArgumentError(f"`{name}` must be {wanted}. Received: {value!r}.")
