"""Converts a decoder's NumPy weights to the layout of `kerasgen.decoder.jax`. Imports JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from kerasgen.decoder.fusing import fused_layer
from kerasgen.decoder.weights import Weights


def prepare(weights: Weights) -> Weights:
    """Return weights in columns layout: kernels `(out, in)` and vectors `(n, 1)`, what one product computes fused.

    Queries, keys and values become `query_key_value`, and gate and up become `gate_up`. The tables stay as they are.
    There is always a `head`; who computes the logits of one row may add a `row_kernel` to it.

    Args:
        weights: by the names of `kerasgen.decoder.weights`, float32 NumPy arrays.
    """
    tables = {name: value for name, value in weights["embedding"].items() if name != "norm"}
    embedding = {name: jnp.asarray(table) for name, table in tables.items()}
    if "norm" in weights["embedding"]:
        embedding["norm"] = _turned(weights["embedding"]["norm"])
    prepared = {
        "embedding": embedding,
        "layers": [{name: _turned(value) for name, value in fused_layer(layer).items()} for layer in weights["layers"]],
        "head": _turned(weights.get("head", {})),
    }
    if "final_norm" in weights:
        prepared["final_norm"] = _turned(weights["final_norm"])
    return prepared


def _turned(weights: Any) -> Any:
    """Transpose kernels and make vectors columns; those of experts, with the expert's axis in front, likewise."""
    if isinstance(weights, Mapping):
        return {name: _transposed(array) if name == "kernel" else _column(array) for name, array in weights.items()}
    return _column(weights)


def _transposed(kernel: Any) -> Any:
    return jnp.asarray(np.ascontiguousarray(np.swapaxes(kernel, -1, -2)))


def _column(vector: Any) -> Any:
    return jnp.asarray(vector[..., None])
