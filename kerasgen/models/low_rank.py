"""Low-rank adapters in the paper's form on Keras's layers: one thin matrix in, one out, of whole projections.

Keras's own `EinsumDense.enable_lora` shares the second matrix among heads and gives each its own first one, which is
another model of more weights. Here a layer becomes one of a class derived from its own, whose `kernel` is the sum, so
that KerasHub's forward pass computes the same as kerasgen's. Imports Keras: import it late.

Source: Hu et al. 2021 (arXiv 2106.09685); Kalajdzievski 2023 (arXiv 2312.03732) for the scale by the rank's root; Liu
et al. 2024 (arXiv 2402.09353) for magnitudes of their own (DoRA).
"""

from __future__ import annotations

from typing import Any

from keras import ops
from keras.src.backend.common.variables import AutocastScope

from kerasgen.models import projections, quantized_base

_CLASSES: dict[type, type] = {}
THIN = ("lora_kernel_a", "lora_kernel_b", "lora_magnitude")
"""What the variables of an adapter are called; the last one is DoRA's."""


class _Adapted:
    """What a Keras layer is besides while it carries such an adapter."""

    lora_scale: float
    lora_magnitude: Any

    @property
    def kernel(self) -> Any:
        """The kernel and the product of the thin matrices, in the kernel's shape."""
        layer: Any = self
        together = _sum(layer)
        if layer.lora_magnitude is not None:
            together = together * magnitudes(layer)
        return ops.cast(projections.from_matrix(layer, together, ops), layer.compute_dtype)

    def _get_kernel_with_merged_lora(self) -> tuple[Any, Any, Any]:
        """What Keras writes into a file, and no scales of codes."""
        return self.kernel, None, None


def frozen(layer: Any) -> Any:
    """Return the matrix beside a layer's adapter, float32 `(rows, columns)`, whether it is held as floats or codes."""
    if quantized_base.is_on(layer):
        return quantized_base.restored(layer, "float32")
    with AutocastScope(None):  # a layer that computes in bfloat16 reads its variables rounded to that
        return projections.to_matrix(layer, ops.convert_to_tensor(layer._kernel, "float32"), ops)


def _sum(layer: Any) -> Any:
    with AutocastScope(None):
        return frozen(layer) + ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b) * layer.lora_scale


def magnitudes(layer: Any) -> Any:
    """Return by what DoRA multiplies each output of a layer, biases left out: float32 `(columns,)`.

    It is the learned magnitude by the norm of the sum's column, which is taken to be constant for a gradient, as its
    paper's section 4.3 has it.
    """
    norms = ops.sqrt(ops.sum(ops.square(_sum(layer)), axis=0))
    with AutocastScope(None):
        return ops.convert_to_tensor(layer.lora_magnitude) / ops.stop_gradient(norms)


def smaller_side(layer: Any) -> int:
    """Return the most that the rank of a layer's adapter can be."""
    return min(projections.matrix_shape(layer))


def enable(layer: Any, rank: int, alpha: float, *, rank_stabilized: bool, use_dora: bool = False) -> None:
    """Put an adapter on a built layer that carries none; its second matrix is zero, and its first one to be drawn.

    Args:
        layer: a `keras.layers.Dense` or `EinsumDense`, or one derived from it.
        rank: columns of the thin matrices.
        alpha: their product is scaled by `alpha / rank`.
        rank_stabilized: whether it is scaled by `alpha / rank ** 0.5` instead.
        use_dora: whether each output's magnitude is learned beside.
    """
    rows, columns = projections.matrix_shape(layer)
    plain = type(layer)
    if plain not in _CLASSES:  # of the same name, by which Keras finds the layer's class in its files
        said = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
        _CLASSES[plain] = type(plain.__name__, (_Adapted, plain), said)
    shapes: dict[str, tuple[int, ...]] = {"lora_kernel_a": (rows, rank), "lora_kernel_b": (rank, columns)}
    if use_dora:
        shapes["lora_magnitude"] = (columns,)
    layer._tracker.unlock()
    for name, thin in shapes.items():
        setattr(layer, name, layer.add_weight(name=name, shape=thin, initializer="zeros", dtype="float32"))
    if use_dora:
        layer.lora_magnitude.assign(ops.sqrt(ops.sum(ops.square(frozen(layer)), axis=0)))
    else:
        layer.lora_magnitude = None
    layer._tracker.lock()
    if layer._kernel is not None:
        layer._kernel.trainable = False
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = True, rank, alpha
    layer.lora_scale = alpha / (rank**0.5 if rank_stabilized else rank)
    layer.__class__ = _CLASSES[plain]


def is_on(layer: Any) -> bool:
    """Return whether a layer carries an adapter of this form."""
    return isinstance(layer, _Adapted)


def thin(layer: Any) -> dict[str, Any]:
    """Return the variables of a layer's adapter, in either form, by their names."""
    return {name: found for name in THIN if (found := getattr(layer, name, None)) is not None}


def forget(layer: Any) -> None:
    """Let a layer whose adapter was taken off be of its own class again."""
    if is_on(layer):
        layer.__class__ = type(layer).__mro__[2]
