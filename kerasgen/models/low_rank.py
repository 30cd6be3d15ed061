"""Low-rank adapters in the paper's form on Keras's layers: one thin matrix in, one out, of whole projections.

Keras's own `EinsumDense.enable_lora` shares the second matrix among heads and gives each its own first one, which is
another model of more weights. Here a layer becomes one of a class derived from its own, whose `kernel` is the sum, so
that KerasHub's forward pass computes the same as kerasgen's. Imports Keras: import it late.

Source: Hu et al. 2021 (arXiv 2106.09685); Kalajdzievski 2023 (arXiv 2312.03732) for the scale by the rank's root.
"""

from __future__ import annotations

from math import prod
from typing import Any

from keras import ops

_CLASSES: dict[type, type] = {}


class _Adapted:
    """What a Keras layer is besides while it carries such an adapter."""

    lora_scale: float

    @property
    def kernel(self) -> Any:
        """The kernel and the product of the thin matrices, in the kernel's shape."""
        layer: Any = self
        plain = layer._kernel
        inputs, outputs = sides(layer)
        order = [*inputs, *outputs]
        together = ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b) * layer.lora_scale
        together = ops.reshape(together, [plain.shape[axis] for axis in order])
        together = ops.transpose(together, [order.index(axis) for axis in range(len(order))])
        return ops.cast(ops.add(plain, together), layer.compute_dtype)

    def _get_kernel_with_merged_lora(self) -> tuple[Any, Any, Any]:
        """What Keras writes into a file, and no scales of codes."""
        return self.kernel, None, None


def sides(layer: Any) -> tuple[list[int], list[int]]:
    """Return the axes of a dense or einsum-dense layer's kernel that are summed over, and the others."""
    given, _, rest = getattr(layer, "equation", "").partition(",")
    kernel, _, made = rest.partition("->")
    axes = range(len(layer._kernel.shape))
    summed = [axis for axis in axes if kernel[axis] in given and kernel[axis] not in made] if kernel else [0]
    return summed, [axis for axis in axes if axis not in summed]


def smaller_side(layer: Any) -> int:
    """Return the most that the rank of a layer's adapter can be."""
    shape = layer._kernel.shape
    return min(int(prod(shape[axis] for axis in axes)) for axes in sides(layer))


def enable(layer: Any, rank: int, alpha: float, *, rank_stabilized: bool) -> None:
    """Put an adapter on a built layer that carries none; its second matrix is zero, and its first one to be drawn.

    Args:
        layer: a `keras.layers.Dense` or `EinsumDense`, or one derived from it.
        rank: columns of the thin matrices.
        alpha: their product is scaled by `alpha / rank`.
        rank_stabilized: whether it is scaled by `alpha / rank ** 0.5` instead.
    """
    shape = layer._kernel.shape
    rows, columns = (prod(shape[axis] for axis in axes) for axes in sides(layer))
    plain = type(layer)
    if plain not in _CLASSES:  # of the same name, by which Keras finds the layer's class in its files
        said = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
        _CLASSES[plain] = type(plain.__name__, (_Adapted, plain), said)
    layer._tracker.unlock()
    for name, thin in (("lora_kernel_a", (rows, rank)), ("lora_kernel_b", (rank, columns))):
        setattr(layer, name, layer.add_weight(name=name, shape=thin, initializer="zeros", dtype="float32"))
    layer._tracker.lock()
    layer._kernel.trainable = False
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = True, rank, alpha
    layer.lora_scale = alpha / (rank**0.5 if rank_stabilized else rank)
    layer.__class__ = _CLASSES[plain]


def is_on(layer: Any) -> bool:
    """Return whether a layer carries an adapter of this form."""
    return isinstance(layer, _Adapted)


def forget(layer: Any) -> None:
    """Let a layer whose adapter was taken off be of its own class again."""
    if is_on(layer):
        layer.__class__ = type(layer).__mro__[2]
