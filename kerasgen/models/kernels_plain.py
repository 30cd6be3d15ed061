"""The parts of a block in `keras.ops`, for backends without kernels of kerasgen; see `kerasgen.models.packed`."""

from __future__ import annotations

from typing import Any

from keras import ops

from kerasgen.decoder.arithmetic import normalize
from kerasgen.decoder.config import Norm


def gelu(x: Any) -> Any:
    """Return the tanh approximation of GELU."""
    return ops.gelu(x, approximate=True)


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Return `x`, `(rows, width)`, normalised along its width in float32."""
    weights = {"scale": gamma, "bias": beta}
    return ops.cast(normalize(ops, ops.cast(x, "float32"), Norm(epsilon=epsilon), weights), x.dtype)


def affine(x: Any, kernel: Any, bias: Any) -> Any:
    """Return `x @ kernel + bias`, of `(rows, width)`, `(width, columns)` and `(columns,)`; of no bias, `x @ kernel`."""
    return ops.matmul(x, kernel) if bias is None else ops.matmul(x, kernel) + bias


def frozen_product(x: Any, held: Any, restore: Any) -> Any:
    """Return `x @ restore(held, x.dtype)`, the product with the matrix that codes stand for."""
    return ops.matmul(x, restore(held, x.dtype))
