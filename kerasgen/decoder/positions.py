"""Rotary positions and ALiBi: frequencies and slopes as NumPy arrays, and the rotation over an array namespace.

Sources: Su et al. 2021, "RoFormer"; Press et al. 2022, "Train Short, Test Long"; Peng et al. 2023, "YaRN".
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.config import RotaryPositions
from kerasgen.decoder.rotary_scaling import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    YarnScaling,
)

Floats = npt.NDArray[np.float32]


def frequencies(rotary: RotaryPositions, head_dim: int, sequence_length: int) -> tuple[Floats, float]:
    """Return the angle a position of each pair of rotated dimensions, float32 `(pairs,)`, and the rotation's scale.

    Args:
        rotary: the positions.
        head_dim: width of a head.
        sequence_length: of the whole text, by which some scalings choose.
    """
    rotated, scaling = rotary.rotated_dim(head_dim), rotary.scaling
    exponents = np.arange(0, rotated, 2, dtype=np.float64) / rotated
    rates: Any = rotary.base**-exponents
    scale = 1.0
    if isinstance(scaling, LinearScaling):
        rates = rates / scaling.factor
    elif isinstance(scaling, DynamicScaling):
        longer = max(sequence_length, scaling.original_length) / scaling.original_length
        growth = scaling.factor * longer - (scaling.factor - 1)
        rates = (rotary.base * growth ** (rotated / (rotated - 2))) ** -exponents
    elif isinstance(scaling, Llama3Scaling):
        rates = _llama3(rates, scaling)
    elif isinstance(scaling, YarnScaling):
        rates = _yarn(rates, scaling, rotary.base, rotated)
        scale = _yarn_scale(scaling)
    elif isinstance(scaling, LongRopeScaling):
        is_long = sequence_length > scaling.original_length
        rates = rates / np.asarray(scaling.long_factors if is_long else scaling.short_factors)
        scale = scaling.attention_factor
    elif scaling is not None:
        assert_never(scaling)
    return rates.astype(np.float32), scale


def _llama3(rates: Any, scaling: Llama3Scaling) -> Any:
    wavelengths = 2 * math.pi / rates
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    # 0 where a frequency is low, 1 where it is high.
    share = np.clip((scaling.original_length / wavelengths - low) / (high - low), 0, 1)
    return (1 - share) * rates / scaling.factor + share * rates


def _yarn(rates: Any, scaling: YarnScaling, base: float, rotated: int) -> Any:
    def place(turns: float) -> float:
        """The dimension that turns so often within the trained length."""
        return rotated * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = place(scaling.beta_fast), place(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotated - 1)
    ramp = np.clip((np.arange(rotated // 2) - first) / max(last - first, 0.001), 0, 1)
    return rates / scaling.factor * ramp + rates * (1 - ramp)


def _yarn_scale(scaling: YarnScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0


def angles(xp: Any, positions: Any, of: tuple[Floats, float], axis: int = -1) -> tuple[Any, Any]:
    """Return cosines and sines of each position's angles.

    Args:
        xp: the array namespace.
        positions: float32, of any shape.
        of: what `frequencies` returns.
        axis: 0 or -1, where the dimension of the pairs is put beside those of the positions.

    Returns:
        Two float32 arrays with one dimension more than the positions.
    """
    pairs, scale = of
    phases = xp.expand_dims(positions, axis) * _along(axis, pairs, positions)
    cosines, sines = xp.cos(phases), xp.sin(phases)
    return (cosines, sines) if scale == 1.0 else (cosines * scale, sines * scale)


def text_angles(
    xp: Any, rotary: RotaryPositions, head_dim: int, positions: Any, text_lengths: Any, axis: int = -1
) -> tuple[Any, Any]:
    """Return cosines and sines of each position's angles, where texts have lengths that only a graph knows.

    Args:
        xp: the array namespace.
        rotary: the positions' kind.
        head_dim: width of a head.
        positions: float32, of any shape.
        text_lengths: int, in a shape that broadcasts to it, of the texts in which they stand.
        axis: as in `angles`.

    Returns:
        Two float32 arrays with one dimension more than the positions.
    """
    scaling = rotary.scaling
    if isinstance(scaling, LongRopeScaling):
        is_long = xp.expand_dims(text_lengths > scaling.original_length, axis)
        ends = (scaling.original_length, scaling.original_length + 1)
        short, long = (angles(xp, positions, frequencies(rotary, head_dim, end), axis) for end in ends)
        return xp.where(is_long, long[0], short[0]), xp.where(is_long, long[1], short[1])
    if isinstance(scaling, DynamicScaling):
        pairs, _ = frequencies(replace(rotary, scaling=None), head_dim, 0)
        longer = xp.maximum(text_lengths, scaling.original_length) / scaling.original_length
        growth = xp.expand_dims(scaling.factor * longer - (scaling.factor - 1), axis)
        rotated = 2 * len(pairs)
        exponents = (np.arange(0, rotated, 2) / (rotated - 2)).astype(np.float32)
        slower = growth ** -_along(axis, exponents, positions)
        phases = xp.expand_dims(positions, axis) * _along(axis, pairs, positions) * slower
        return xp.cos(phases), xp.sin(phases)
    return angles(xp, positions, frequencies(rotary, head_dim, 0), axis)


def _along(axis: int, values: Floats, positions: Any) -> Floats:
    """Values of each pair in a shape that broadcasts with positions that got one more dimension at this axis."""
    beside = (1,) * len(positions.shape)
    return values.reshape((*beside, -1) if axis == -1 else (-1, *beside))


def rotate(xp: Any, x: Any, cosines: Any, sines: Any, rotary: RotaryPositions, axis: int = -1) -> Any:
    """Return queries or keys rotated by their positions.

    Args:
        xp: the array namespace.
        x: float, a head's dimensions along the axis.
        cosines: of the angles, in a shape that broadcasts to `x` with half as many rotated dimensions.
        sines: likewise.
        rotary: which dimensions make pairs.
        axis: of a head's dimensions.
    """
    place = axis % len(x.shape)
    size = x.shape[place]
    rotated = rotary.rotated_dim(size)

    def part(*bounds: int | None) -> Any:
        return x[(slice(None),) * place + (slice(*bounds),)]

    if rotary.interleaved:
        first, second = part(0, rotated, 2), part(1, rotated, 2)
    else:
        first, second = part(0, rotated // 2), part(rotated // 2, rotated)
    rotated_pairs = [first * cosines - second * sines, second * cosines + first * sines]
    if rotary.interleaved:
        # A graph may not know how many rows there are. Of several unknown lengths our own TensorFlow makes a shape.
        unknown = -1 if tuple(x.shape).count(None) == 1 else None
        shape = [unknown if length is None else length for length in x.shape]
        shape[place] = rotated
        rotated_pairs = [xp.reshape(xp.stack(rotated_pairs, axis=place + 1), tuple(shape))]
    return xp.concatenate([*rotated_pairs, part(rotated, None)] if rotated < size else rotated_pairs, axis=place)


def alibi_slopes(num_heads: int) -> Floats:
    """Return by how much each head's score falls with each token of distance, float32 `(num_heads,)`."""
    whole = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8 * (head + 1) / whole) for head in range(whole)]
    # Of a number that is no power of two the rest stand between, every other one of twice as many.
    slopes += [2.0 ** (-4 * (2 * head + 1) / whole) for head in range(num_heads - whole)]
    return np.array(slopes, dtype=np.float32)
