"""Rounds tensors as each type of a GGUF file does, apart from the package that writes it. Imports NumPy only.

Sources: the formats' definitions in ggml (`block_q8_0`, `block_q5_0`, `block_q4_0`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.exporters.gguf.dtypes import BLOCK

Floats = npt.NDArray[np.float32]


def rounded(tensor: Any, kind: str) -> Floats:
    """Return a float32 tensor as it comes back from being stored in this type."""
    if kind == "F32":
        return np.asarray(tensor, np.float32)
    if kind == "F16":
        return np.asarray(tensor.astype(np.float16).astype(np.float32))
    if kind == "BF16":
        return _sixteen_bits_of_range(tensor)
    return {"Q8_0": _eight_bits, "Q5_0": _five_bits, "Q4_0": _four_bits}[kind](tensor)


def _sixteen_bits_of_range(tensor: Any) -> Floats:
    """Bfloat16: the upper half of a float32, the nearest one, an even one of two."""
    bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)


def _eight_bits(tensor: Any) -> Floats:
    """Q8_0: 32 neighbours share a scale, a float16 with which the farthest of them is 127; halves go away from zero."""
    blocks = _blocks(tensor)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    steps = np.abs(blocks * _inverse(scale))
    whole = np.copysign(np.floor(steps) + (steps - np.floor(steps) >= 0.5), blocks).astype(np.int8)
    return _multiplied(whole, scale, tensor)


def _five_bits(tensor: Any) -> Floats:
    return _few_bits(tensor, 16)


def _four_bits(tensor: Any) -> Floats:
    return _few_bits(tensor, 8)


def _few_bits(tensor: Any, half: int) -> Floats:
    """Q5_0, Q4_0: the farthest of 32 neighbours is the lowest of `2 * half` steps, whatever its sign."""
    blocks = _blocks(tensor)
    farthest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
    scale = farthest / np.float32(-half)
    # In 32 bits, as ggml: they decide what becomes of a weight on the edge between two steps.
    places = np.floor(blocks * _inverse(scale) + np.float32(half + 0.5))
    return _multiplied(np.minimum(places, 2 * half - 1) - half, scale, tensor)


def _blocks(tensor: Any) -> Floats:
    return np.ascontiguousarray(tensor, np.float32).reshape(-1, BLOCK)


def _inverse(scale: Floats) -> Floats:
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _multiplied(whole: Any, scale: Floats, like: Any) -> Floats:
    product = whole.astype(np.float32) * scale.astype(np.float16).astype(np.float32)
    return np.asarray(product.reshape(like.shape))
