"""Converts a decoder's NumPy weights to the layout of `kerasgen.decoder.jax`. Imports JAX."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kerasgen import huge_pages
from kerasgen.decoder.block import GATE_UP, QUERY_KEY_VALUE
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.fusing import fused_layer, fused_name
from kerasgen.decoder.weights import Weights, layer_shapes


def prepare(
    weights: Weights,
    after_layer: Callable[[int, Weights], None] | None = None,
    after_tables: Callable[[Weights], None] | None = None,
    empty: huge_pages.Empty = huge_pages.empty,
) -> Weights:
    """Return weights in columns layout: kernels `(out, in)` and vectors `(n, 1)`, what one product computes fused.

    Queries, keys and values become `query_key_value`, and gate and up become `gate_up`. The tables stay as they are.
    There is always a `head`; who computes the logits of one row may add a `row_kernel` to it.

    Args:
        weights: by the names of `kerasgen.decoder.weights`, float32 NumPy arrays; tables may be JAX's, which are not
            copied. Layers may be made as they are iterated over: each is let go before the next is taken.
        after_layer: called with a layer's number and its prepared weights before the next layer is taken.
        after_tables: called with all that stands around the layers once it is prepared, before the first is taken.
        empty: gives out the memory of kernels on a CPU.
    """
    tables = {name: value for name, value in weights["embedding"].items() if name != "norm"}
    embedding = {name: jnp.asarray(table) for name, table in tables.items()}
    if "norm" in weights["embedding"]:
        embedding["norm"] = _turned(weights["embedding"]["norm"], empty)
    prepared: Weights = {
        "embedding": embedding,
        "layers": [],
        "head": _turned(weights.get("head", {}), empty),
    }
    if "final_norm" in weights:
        prepared["final_norm"] = _turned(weights["final_norm"], empty)
    layers = weights["layers"]
    del embedding, tables
    if after_tables is not None:
        after_tables(prepared)
    for index, layer in enumerate(layers):
        prepared["layers"].append(prepare_layer(layer, empty))
        if after_layer is not None:
            after_layer(index, prepared["layers"][-1])
    return prepared


def prepare_layer(layer: Mapping[str, Any], empty: huge_pages.Empty = huge_pages.empty) -> dict[str, Any]:
    """Return one layer's weights in columns layout."""
    # The largest first: a smaller one would begin the only hole that a larger one fits.
    parts = sorted(fused_layer(layer).items(), key=lambda part: -_size(part[1]))
    return {name: _turned(value, empty) for name, value in parts}


def _size(weights: Any) -> int:
    return sum(map(_size, weights.values())) if isinstance(weights, Mapping) else int(weights.size)


def restored(prepared: Mapping[str, Any], config: DecoderConfig, index: int, name: str) -> Any:
    """Return a weight of a layer that `prepare_layer` returned, as it was given; it may be a view.

    Args:
        prepared: the layer.
        config: the decoder's.
        index: of the layer.
        name: of the weight in it, such as `query.kernel`.
    """
    shapes = layer_shapes(config, index)
    part, _, leaf = name.rpartition(".")
    start, fused = 0, part
    for roles, before in ((QUERY_KEY_VALUE, ""), (GATE_UP, ""), (GATE_UP, "shared_")):
        members = [f"{before}{role}" for role in roles]
        if part in members and f"{before}{fused_name(roles)}" in prepared:
            fused = f"{before}{fused_name(roles)}"
            start = sum(shapes[f"{member}.kernel"][-1] for member in members[: members.index(part)])
    array = np.asarray(prepared[fused][leaf] if part else prepared[leaf])
    if leaf != "kernel":
        return array[..., start : start + shapes[name][-1], 0]
    return np.swapaxes(array[..., start : start + shapes[name][-1], :], -1, -2)


def restored_table(prepared: Weights, name: str) -> Any:
    """Return a table or the output layer's kernel as it was given to `prepare`; it may be a view."""
    part, leaf = name.split(".")
    array = np.asarray(prepared[part][leaf])
    return array.T if leaf == "kernel" else array


def _turned(weights: Any, empty: huge_pages.Empty) -> Any:
    """Transpose kernels and make vectors columns; those of experts, with the expert's axis in front, likewise."""
    if isinstance(weights, Mapping):
        return {
            name: _transposed(array, empty) if name == "kernel" else _column(array) for name, array in weights.items()
        }
    return _column(weights)


def _transposed(kernel: Any, empty: huge_pages.Empty) -> Any:
    return placed(np.swapaxes(np.asarray(kernel), -1, -2), empty)  # never a view of what a variable holds


def placed(array: Any, empty: huge_pages.Empty = huge_pages.empty) -> Any:
    """Return a copy of a NumPy array as an array of JAX's; on a CPU where huge pages fit, which are read faster."""
    if jax.default_backend() != "cpu":
        return jnp.asarray(np.array(array, order="C"))
    return jax.device_put(huge_pages.copy(array, empty))  # which takes the memory itself


def move_into_huge_pages(arrays: Iterable[Any]) -> threading.Thread | None:
    """Move arrays of JAX's, on a CPU, into huge pages, one after another in a thread that nobody needs to wait for.

    An array that is let go meanwhile is left out, and the first one that the system can't move is the last that is
    tried.

    Returns:
        The thread, or None where the system moves nothing.
    """
    if jax.default_backend() != "cpu" or not huge_pages.can_move():
        return None
    waiting = [weakref.ref(array) for array in arrays if array.nbytes >= huge_pages.PAGE]

    def move() -> None:
        for reference in waiting:
            array = reference()
            try:
                if array is None:
                    continue
                address = array.unsafe_buffer_pointer()
                # What doesn't begin with a page lies in memory that TensorFlow gave out, beside other weights.
                if not huge_pages.move(address, array.nbytes, edges=address % huge_pages.PAGE != 0):
                    return
            except (RuntimeError, ValueError):  # deleted, or on several devices
                continue

    thread = threading.Thread(target=move, name="kerasgen-huge-pages", daemon=True)
    thread.start()
    return thread


def _column(vector: Any) -> Any:
    return jnp.asarray(vector[..., None])
