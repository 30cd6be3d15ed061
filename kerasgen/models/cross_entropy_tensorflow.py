"""Chunked cross-entropy on TensorFlow; see `kerasgen.models.cross_entropy`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Where rows of logits begin at the same place of a cache's page, oneDNN's products take twice their time.
ALIASED, APART = 1024, 16
LANES = 64
SIZES = 64
"""Chunks have a multiple of so many tokens, unless the whole chunk is smaller."""


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
    table = tf.convert_to_tensor(table)  # a variable would be watched apart from the function's arguments
    if not table_gradient:
        table = tf.stop_gradient(table)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def losses(hidden: Any, table: Any) -> tuple[tuple[Any, Any], Any]:
        loss, accuracy, of_hidden, of_table = _walk(hidden, table, targets, weights, chunk, table_gradient, soft_cap)

        def gradient(of_loss: Any, of_accuracy: Any) -> tuple[Any, Any]:
            return (
                tf.cast(of_loss * of_hidden, hidden.dtype),
                tf.cast(of_loss * of_table, table.dtype) if table_gradient else None,
            )

        return (loss, accuracy), gradient

    loss, accuracy = losses(hidden, table)
    return loss, tf.stop_gradient(accuracy)


def nats(
    hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, table_gradient: bool, soft_cap: float | None = None
) -> Any:
    """Return -log p of each target, float32 `(tokens,)`, 0 where its weight is 0; the logits are computed twice.

    The arguments are those of `weighted_loss`, but that weights only say which targets count.
    """
    table = tf.convert_to_tensor(table)
    if not table_gradient:
        table = tf.stop_gradient(table)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def costs(hidden: Any, table: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            upstream = tf.where(weights != 0, upstream, 0.0)
            _, _, of_hidden, of_table = _walk(
                hidden, table, targets, upstream, chunk, table_gradient, soft_cap, signed=True
            )
            return tf.cast(of_hidden, hidden.dtype), tf.cast(of_table, table.dtype) if table_gradient else None

        return _nats(hidden, table, targets, weights, chunk, soft_cap), gradient

    return costs(hidden, table)


def costs_under(table: Any, soft_cap: float | None) -> Callable[[tuple[Any, Any]], Any]:
    """Return a function of hidden states, float `(rows, hidden_dim)`, and targets: -log p of each, float32 `(rows,)`.

    The logits are float32 whatever the type of the hidden states. There is no gradient.

    Args:
        table: float `(vocabulary_size, hidden_dim)`.
        soft_cap: of the logits, or None.
    """
    table = tf.cast(tf.convert_to_tensor(table), tf.float32)
    vocabulary_size = table.shape[0]
    if vocabulary_size % ALIASED == 0:
        table = tf.pad(table, [[0, APART], [0, 0]])

    def of_rows(inputs: tuple[Any, Any]) -> Any:
        rows, targets = inputs
        logits = tf.matmul(tf.cast(rows, tf.float32), table, transpose_b=True)
        return _costs_of(logits, targets, vocabulary_size, soft_cap)

    return of_rows


def _nats(hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, soft_cap: float | None) -> Any:
    table = tf.cast(table, hidden.dtype)
    vocabulary_size = table.shape[0]
    if vocabulary_size % ALIASED == 0:
        table = tf.pad(table, [[0, APART], [0, 0]])
    real = tf.cast(tf.where(weights != 0)[:, 0], tf.int32)
    count = tf.size(real)
    chunks = (count + chunk - 1) // chunk
    padded = tf.pad(real, [[0, chunks * chunk - count]])
    rows, wanted = tf.gather(hidden, padded), tf.gather(targets, padded)
    pieces = tf.TensorArray(tf.float32, size=chunks, element_shape=(None,))

    def step(index: Any, pieces: Any) -> tuple[Any, Any]:
        part = slice(index * chunk, (index + 1) * chunk)
        if hidden.dtype == tf.float32:
            logits = tf.matmul(rows[part], table, transpose_b=True)
            costs = _costs_of(logits, wanted[part], vocabulary_size, soft_cap)
        else:
            costs = _costs_of_product(rows[part], table, wanted[part], vocabulary_size, soft_cap)
        return index + 1, pieces.write(index, costs)

    _, pieces = tf.while_loop(
        lambda index, _: index < chunks, step, (tf.zeros((), tf.int32), pieces), parallel_iterations=1
    )
    return tf.scatter_nd(real[:, None], pieces.concat()[:count], tf.shape(weights))


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _costs_of_product(rows: Any, table: Any, targets: Any, vocabulary_size: int, soft_cap: float | None) -> Any:
    """Return what `_costs_of` does, from half-precision products as in `_slopes_of_product`."""
    logits = tf.raw_ops.BatchMatMulV3(x=rows, y=table, Tout=tf.float32, adj_y=True)
    return _costs_of(logits, targets, vocabulary_size, soft_cap)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _costs_of(logits: Any, targets: Any, vocabulary_size: int, soft_cap: float | None) -> Any:
    if soft_cap is not None:
        logits = soft_cap * tf.tanh(logits / soft_cap)
    if logits.shape[1] > vocabulary_size:
        logits = tf.where(tf.range(logits.shape[1]) < vocabulary_size, logits, -math.inf)
    highest = tf.reduce_max(logits, axis=-1)
    sums = _sums(tf.exp(logits - highest[:, None]))
    return highest + tf.math.log(sums) - tf.gather(logits, targets, batch_dims=1)


def _walk(
    hidden: Any,
    table: Any,
    targets: Any,
    weights: Any,
    chunk: int,
    table_gradient: bool,
    soft_cap: float | None,
    *,
    signed: bool = False,
) -> tuple[Any, Any, Any, Any]:
    """Return loss, accuracy, and the loss's gradients by `hidden` and `table`, computed a chunk at a time.

    Weights may be below 0 where they are `signed`.
    """
    table = tf.cast(table, hidden.dtype)
    vocabulary_size = table.shape[0]
    if vocabulary_size % ALIASED == 0:
        table = tf.pad(table, [[0, APART], [0, 0]])
    # Only real targets: targets of weight 0 are not computed. Chunks have equal and few sizes, because XLA compiles
    # its loop for each size. The first row, at weight 0, fills up the last chunk.
    real_places = tf.cast(tf.where(weights != 0 if signed else weights > 0)[:, 0], tf.int32)
    count = tf.size(real_places)
    chunks = (count + chunk - 1) // chunk
    step_of = tf.minimum(SIZES, chunk)
    size = -(-count // (tf.maximum(chunks, 1) * step_of)) * step_of
    real = tf.pad(real_places, [[0, chunks * size - count]])
    weight = tf.where(tf.range(chunks * size) < count, tf.gather(weights, real), 0.0)
    rows, wanted = tf.gather(hidden, real), tf.gather(targets, real)
    # Half-precision rows are weighed relative to the heaviest, lest they underflow.
    heaviest = tf.maximum(tf.reduce_max(tf.abs(weights) if signed else weights), tf.constant(1e-30))
    weighed = tf.cast(tf.cast(rows, tf.float32) * (weight / heaviest)[:, None], hidden.dtype)
    pieces = tf.TensorArray(tf.float32, size=chunks, element_shape=(None, hidden.shape[-1]))

    def step(index: Any, loss: Any, accuracy: Any, pieces: Any, of_table: Any) -> tuple[Any, ...]:
        part = slice(index * size, (index + 1) * size)
        nll, right, of_logits = _costs(rows[part], table, wanted[part], weight[part], vocabulary_size, soft_cap)
        # Weighed after the product, which is narrower; in float32, where small weights don't vanish.
        pieces = pieces.write(index, tf.cast(tf.matmul(of_logits, table), tf.float32) * weight[part][:, None])
        if table_gradient:
            of_table += tf.cast(tf.matmul(of_logits, weighed[part], transpose_a=True), tf.float32)
        return index + 1, loss + nll, accuracy + right, pieces, of_table

    zero = tf.zeros((), tf.float32)
    of_table = tf.zeros(table.shape if table_gradient else (), tf.float32)
    _, loss, accuracy, pieces, of_table = tf.while_loop(
        lambda index, *_: index < chunks,
        step,
        (tf.zeros((), tf.int32), zero, zero, pieces, of_table),
        parallel_iterations=1,
    )
    of_hidden = tf.scatter_nd(real[:, None], pieces.concat(), tf.shape(hidden))
    return loss, accuracy, of_hidden, of_table[:vocabulary_size] * heaviest if table_gradient else of_table


def _costs(
    rows: Any, table: Any, targets: Any, weights: Any, vocabulary_size: int, soft_cap: float | None
) -> tuple[Any, Any, Any]:
    """Return the results of `_slopes`, from `(tokens, hidden_dim)` and `(columns, hidden_dim)` of one type."""
    costs: tuple[Any, Any, Any]
    if rows.dtype == tf.float32:
        logits = tf.matmul(rows, table, transpose_b=True)
        costs = _slopes(logits, targets, weights, vocabulary_size, rows.dtype, soft_cap)
    else:
        costs = _slopes_of_product(rows, table, targets, weights, vocabulary_size, soft_cap)
    return costs


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _slopes_of_product(
    rows: Any, table: Any, targets: Any, weights: Any, vocabulary_size: int, soft_cap: float | None
) -> tuple[Any, Any, Any]:
    """Half-precision products with float32 sums that stay float32: TensorFlow's own kernels round them to half again.

    With AMX, 1024 rows: 36 ms of a core with the softmax's for 256 x 8000, as before, and 54 for 768 x 8000, 10 more.
    """
    logits = tf.raw_ops.BatchMatMulV3(x=rows, y=table, Tout=tf.float32, adj_y=True)
    costs: tuple[Any, Any, Any] = _slopes(logits, targets, weights, vocabulary_size, rows.dtype, soft_cap)
    return costs


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _slopes(
    logits: Any, targets: Any, weights: Any, vocabulary_size: int, dtype: Any, soft_cap: float | None
) -> tuple[Any, Any, Any]:
    """Return weighted nats and hits, float32 scalars, and the unweighted gradient by the logits, of `dtype`.

    One core takes 30 ms for 2048 x 8000 logits; TensorFlow's own kernel, whose gradient is as exact, took 100.
    """
    columns = tf.range(logits.shape[1])
    if soft_cap is not None:
        logits = soft_cap * tf.tanh(logits / soft_cap)
        bend = 1.0 - tf.square(logits / soft_cap)
    if logits.shape[1] > vocabulary_size:
        logits = tf.where(columns < vocabulary_size, logits, -math.inf)
    highest = tf.reduce_max(logits, axis=-1)
    exponentials = tf.exp(logits - highest[:, None])
    sums = _sums(exponentials)
    chosen = tf.gather(logits, targets, batch_dims=1)
    is_target = tf.cast(columns == targets[:, None], tf.float32)
    of_logits = exponentials / sums[:, None] - is_target
    if soft_cap is not None:
        of_logits *= bend
    of_logits = tf.cast(of_logits, dtype)
    nll = tf.reduce_sum(weights * (highest + tf.math.log(sums) - chosen))
    # Of several likeliest tokens the first counts, as for argmax.
    before = tf.reduce_max(tf.where(columns < targets[:, None], logits, -math.inf), axis=-1)
    right = (chosen >= highest) & (before < chosen)
    return nll, tf.reduce_sum(weights * tf.cast(right, tf.float32)), of_logits


def _sums(x: Any) -> Any:
    """Sum long rows of non-negative numbers; adding them one after the other would lose three times as much."""
    columns = x.shape[1]
    whole = columns // LANES * LANES
    if not whole:
        return tf.reduce_sum(x, axis=-1)
    lanes = tf.reduce_sum(tf.reshape(x[:, :whole], (-1, columns // LANES, LANES)), axis=1)
    # The maximum changes nothing, and keeps XLA from making one sum of the two.
    return tf.reduce_sum(tf.maximum(lanes, 0.0), axis=-1) + tf.reduce_sum(x[:, whole:], axis=-1)
