"""Chunked cross-entropy on JAX; see `kerasgen.models.cross_entropy`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax import lax
from jax.sharding import PartitionSpec


def on_accelerator() -> bool:
    """Return whether something else than a CPU computes."""
    return bool(jax.default_backend() != "cpu")


def distributed_loss(
    hidden: Any,
    table: Any,
    targets: Any,
    weights: Any,
    chunk_of: Callable[[int], int],
    table_gradient: bool,
    soft_cap: float | None = None,
) -> tuple[Any, Any]:
    """Return `weighted_loss`, of each device's own tokens where a `keras.distribution` splits the batch.

    Of `chunk_of`, the tokens of a device make their chunk's size; the other arguments are `weighted_loss`'s.
    """
    distribution = keras.distribution.distribution()
    if distribution is None or distribution.num_model_replicas == 1:
        whole: tuple[Any, Any] = weighted_loss(
            hidden, table, targets, weights, chunk_of(hidden.shape[0]), table_gradient, soft_cap
        )
        return whole
    axis = distribution.batch_dim_name

    def of_device(hidden: Any, table: Any, targets: Any, weights: Any) -> Any:
        own_loss = weighted_loss(hidden, table, targets, weights, chunk_of(hidden.shape[0]), table_gradient, soft_cap)
        return lax.psum(own_loss, axis)

    rows = PartitionSpec(axis)
    summed: tuple[Any, Any] = jax.shard_map(
        of_device,
        mesh=distribution.device_mesh.backend_mesh,
        in_specs=(rows, PartitionSpec(), rows, rows),
        out_specs=(PartitionSpec(), PartitionSpec()),
        check_vma=False,
    )(hidden, table, targets, weights)
    return summed


def distributed_nats(
    hidden: Any,
    table: Any,
    targets: Any,
    weights: Any,
    chunk_of: Callable[[int], int],
    table_gradient: bool,
    soft_cap: float | None = None,
) -> Any:
    """Return `nats`, of each device's own tokens where a `keras.distribution` splits the batch."""
    distribution = keras.distribution.distribution()
    if distribution is None or distribution.num_model_replicas == 1:
        return nats(hidden, table, targets, weights, chunk_of(hidden.shape[0]), table_gradient, soft_cap)
    rows = PartitionSpec(distribution.batch_dim_name)

    def of_device(hidden: Any, table: Any, targets: Any, weights: Any) -> Any:
        return nats(hidden, table, targets, weights, chunk_of(hidden.shape[0]), table_gradient, soft_cap)

    return jax.shard_map(
        of_device,
        mesh=distribution.device_mesh.backend_mesh,
        in_specs=(rows, PartitionSpec(), rows, rows),
        out_specs=rows,
        check_vma=False,
    )(hidden, table, targets, weights)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def nats(
    hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, table_gradient: bool, soft_cap: float | None = None
) -> Any:
    """Return -log p of each target, float32 `(tokens,)`, 0 where its weight is 0; the logits are computed twice.

    The arguments are those of `weighted_loss`, but that weights only say which targets count.
    """
    tokens = hidden.shape[0]
    table = table.astype(hidden.dtype)
    short = -tokens % chunk
    order = jnp.argsort(weights == 0, stable=True)
    sorted_hidden = jnp.pad(hidden[order], ((0, short), (0, 0)))
    sorted_targets = jnp.pad(targets[order], (0, short))
    count = jnp.count_nonzero(weights)

    def step(index: Any, found: Any) -> Any:
        begin = index * chunk
        rows = lax.dynamic_slice_in_dim(sorted_hidden, begin, chunk)
        wanted = lax.dynamic_slice_in_dim(sorted_targets, begin, chunk)
        logits = _product(rows, table, ((1,), (1,)))
        if soft_cap is not None:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        highest = logits.max(axis=-1)
        sums = jnp.exp(logits - highest[:, None]).sum(axis=-1)
        chosen = jnp.take_along_axis(logits, wanted[:, None], axis=-1)[:, 0]
        return lax.dynamic_update_slice_in_dim(found, highest + jnp.log(sums) - chosen, begin, 0)

    found = lax.fori_loop(0, (count + chunk - 1) // chunk, step, jnp.zeros((tokens + short,), jnp.float32))
    found = jnp.where(jnp.arange(tokens) < count, found[:tokens], 0.0)
    return jnp.zeros((tokens,), jnp.float32).at[order].set(found, unique_indices=True)


def _nats_forward(
    hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, table_gradient: bool, soft_cap: float | None
) -> tuple[Any, tuple[Any, ...]]:
    found = nats(hidden, table, targets, weights, chunk, table_gradient, soft_cap)
    return found, (hidden, table, targets, weights)


def _nats_backward(
    chunk: int, table_gradient: bool, soft_cap: float | None, residuals: tuple[Any, ...], upstream: Any
) -> tuple[Any, ...]:
    hidden, table, targets, weights = residuals
    upstream = jnp.where(weights == 0, 0.0, upstream)
    _, _, of_hidden, of_table = _walk(
        hidden, table, targets, upstream, chunk, soft_cap, gradients=True, table_gradient=table_gradient, signed=True
    )
    return (
        of_hidden.astype(hidden.dtype),
        None if of_table is None else of_table.astype(table.dtype),
        None,
        None,
    )


nats.defvjp(_nats_forward, _nats_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def weighted_loss(
    hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, table_gradient: bool, soft_cap: float | None = None
) -> tuple[Any, Any]:
    """Return the weighted loss and accuracy, float32 scalars.

    Args:
        hidden: float `(tokens, hidden_dim)`.
        table: float `(vocabulary_size, hidden_dim)`; multiplied in the type of `hidden`.
        targets: int32 `(tokens,)`.
        weights: float32 `(tokens,)`.
        chunk: tokens whose logits are held at once.
        table_gradient: whether the table is trained.
        soft_cap: the soft cap of the logits, or None.
    """
    return _walk(hidden, table, targets, weights, chunk, soft_cap, gradients=False, table_gradient=False)[:2]


def _forward(
    hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, table_gradient: bool, soft_cap: float | None
) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
    loss, accuracy, of_hidden, of_table = _walk(
        hidden, table, targets, weights, chunk, soft_cap, gradients=True, table_gradient=table_gradient
    )
    like = jnp.zeros((0,), hidden.dtype), jnp.zeros((0,), table.dtype)
    return (loss, accuracy), (of_hidden, of_table, *like)


def _backward(
    chunk: int, table_gradient: bool, soft_cap: float | None, residuals: tuple[Any, ...], upstream: tuple[Any, Any]
) -> tuple[Any, ...]:
    of_hidden, of_table, hidden_like, table_like = residuals
    scale = upstream[0]
    return (
        (scale * of_hidden).astype(hidden_like.dtype),
        None if of_table is None else (scale * of_table).astype(table_like.dtype),
        None,
        None,
    )


weighted_loss.defvjp(_forward, _backward)


def _walk(
    hidden: Any,
    table: Any,
    targets: Any,
    weights: Any,
    chunk: int,
    soft_cap: float | None,
    *,
    gradients: bool,
    table_gradient: bool,
    signed: bool = False,
) -> tuple[Any, Any, Any, Any]:
    """Return loss, accuracy, and the loss's gradients by `hidden` and `table`, computed a chunk at a time.

    Weights may be below 0 where they are `signed`.
    """
    tokens, width = hidden.shape
    table = table.astype(hidden.dtype)
    vocabulary_size = table.shape[0]
    short = -tokens % chunk
    # Real targets first: the rest has weight 0 and is not computed.
    order = jnp.argsort(weights == 0, stable=True)
    sorted_hidden = jnp.pad(hidden[order], ((0, short), (0, 0)))
    sorted_targets = jnp.pad(targets[order], (0, short))
    sorted_weights = jnp.pad(weights[order], (0, short))
    chunks = (jnp.count_nonzero(weights) + chunk - 1) // chunk

    def step(index: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        loss, accuracy, of_hidden, of_table = carry
        begin = index * chunk
        rows = lax.dynamic_slice_in_dim(sorted_hidden, begin, chunk)
        wanted = lax.dynamic_slice_in_dim(sorted_targets, begin, chunk)
        weight = lax.dynamic_slice_in_dim(sorted_weights, begin, chunk)
        logits = _product(rows, table, ((1,), (1,)))
        if soft_cap is not None:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        highest = logits.max(axis=-1)
        exponentials = jnp.exp(logits - highest[:, None])
        sums = exponentials.sum(axis=-1)
        chosen = jnp.take_along_axis(logits, wanted[:, None], axis=-1)[:, 0]
        loss += jnp.sum(weight * (highest + jnp.log(sums) - chosen))
        columns = lax.broadcasted_iota(wanted.dtype, logits.shape, 1)
        # Of several likeliest tokens the first counts, as for argmax.
        before = jnp.where(columns < wanted[:, None], logits, -jnp.inf).max(axis=-1)
        accuracy += jnp.sum(weight * ((chosen >= highest) & (before < chosen)))
        if gradients:
            is_target = columns == wanted[:, None]
            # Weighed after the products, which are narrower; in float32, where small weights don't vanish.
            of_logits = exponentials / sums[:, None] - is_target
            if soft_cap is not None:
                of_logits = of_logits * (1.0 - jnp.square(logits / soft_cap))
            of_logits = of_logits.astype(hidden.dtype)
            gradient_rows = _product(of_logits, table, ((1,), (0,))) * weight[:, None]
            of_hidden = lax.dynamic_update_slice_in_dim(of_hidden, gradient_rows, begin, 0)
            if table_gradient:
                weighed = (rows.astype(jnp.float32) * (weight * unit)[:, None]).astype(hidden.dtype)
                of_table += _product(of_logits, weighed, ((0,), (0,)))
        return loss, accuracy, of_hidden, of_table

    # Half-precision rows are weighed relative to the heaviest, lest they underflow.
    heaviest = jnp.max(jnp.abs(sorted_weights) if signed else sorted_weights)
    unit = jnp.where(heaviest > 0, 1.0 / heaviest, 0.0)
    zero = jnp.zeros((), jnp.float32)
    start = (
        zero,
        zero,
        jnp.zeros((tokens + short, width), jnp.float32) if gradients else None,
        jnp.zeros((vocabulary_size, width), jnp.float32) if table_gradient else None,
    )
    loss, accuracy, of_hidden, of_table = lax.fori_loop(0, chunks, step, start)
    if gradients:
        # Row i of what was sorted is row order[i] of what came in.
        of_hidden = jnp.zeros((tokens, width), jnp.float32).at[order].set(of_hidden[:tokens], unique_indices=True)
        of_table = None if of_table is None else of_table * heaviest
    return loss, accuracy, of_hidden, of_table


def _product(left: Any, right: Any, contracted: tuple[tuple[int], tuple[int]]) -> Any:
    return lax.dot_general(left, right, (contracted, ((), ())), preferred_element_type=jnp.float32)
