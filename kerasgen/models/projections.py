"""The kernel of a dense or einsum-dense layer as one matrix, whatever axes Keras gives it. Imports nothing heavy."""

from __future__ import annotations

from math import prod
from typing import Any


def shape(layer: Any) -> tuple[int, ...]:
    """Return the shape of a layer's kernel, whether the layer holds it as floats or as codes."""
    held = getattr(layer, "quantized_shape", None)
    return tuple(layer._kernel.shape) if held is None else tuple(held)


def sides(layer: Any) -> tuple[list[int], list[int]]:
    """Return the axes of a layer's kernel that are summed over, and the others."""
    given, _, rest = getattr(layer, "equation", "").partition(",")
    kernel, _, made = rest.partition("->")
    axes = range(len(shape(layer)))
    summed = [axis for axis in axes if kernel[axis] in given and kernel[axis] not in made] if kernel else [0]
    return summed, [axis for axis in axes if axis not in summed]


def matrix_shape(layer: Any) -> tuple[int, int]:
    """Return `(rows, columns)`, the inputs and the outputs of a layer's projection."""
    whole = shape(layer)
    rows, columns = (prod(whole[axis] for axis in axes) for axes in sides(layer))
    return rows, columns


def to_matrix(layer: Any, kernel: Any, xp: Any) -> Any:
    """Return a kernel as `(rows, columns)`.

    Args:
        layer: whose kernel it is.
        kernel: an array of the kernel's shape.
        xp: NumPy or `keras.ops`.
    """
    inputs, outputs = sides(layer)
    return xp.reshape(xp.transpose(kernel, (*inputs, *outputs)), matrix_shape(layer))


def from_matrix(layer: Any, matrix: Any, xp: Any) -> Any:
    """Return what `to_matrix` was made of: an array of the kernel's shape."""
    inputs, outputs = sides(layer)
    order, whole = [*inputs, *outputs], shape(layer)
    together = xp.reshape(matrix, tuple(whole[axis] for axis in order))
    return xp.transpose(together, tuple(order.index(axis) for axis in range(len(order))))
