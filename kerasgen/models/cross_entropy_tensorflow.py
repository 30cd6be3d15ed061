"""Chunked cross-entropy on TensorFlow; see `kerasgen.models.cross_entropy`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def weighted_loss(
    hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, table_gradient: bool
) -> tuple[Any, Any]:
    """Return the weighted loss and accuracy, float32 scalars.

    Args:
        hidden: float `(tokens, hidden_dim)`.
        table: float `(vocabulary_size, hidden_dim)`; multiplied in the type of `hidden`.
        targets: int32 `(tokens,)`.
        weights: float32 `(tokens,)`.
        chunk: tokens whose logits are held at once.
        table_gradient: whether the table is trained.
    """
    table = tf.convert_to_tensor(table)  # a variable would be watched apart from the function's arguments
    if not table_gradient:
        table = tf.stop_gradient(table)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def losses(hidden: Any, table: Any) -> tuple[tuple[Any, Any], Any]:
        loss, accuracy, of_hidden, of_table = _walk(hidden, table, targets, weights, chunk, table_gradient)

        def gradient(of_loss: Any, of_accuracy: Any) -> tuple[Any, Any]:
            return (
                tf.cast(of_loss * of_hidden, hidden.dtype),
                tf.cast(of_loss * of_table, table.dtype) if table_gradient else None,
            )

        return (loss, accuracy), gradient

    loss, accuracy = losses(hidden, table)
    return loss, tf.stop_gradient(accuracy)


def _walk(
    hidden: Any, table: Any, targets: Any, weights: Any, chunk: int, table_gradient: bool
) -> tuple[Any, Any, Any, Any]:
    """Loss, accuracy, and the gradients of the loss by `hidden` and `table`, a chunk at a time."""
    table = tf.cast(table, hidden.dtype)
    # Real targets alone: what weighs nothing is not computed.
    real = tf.cast(tf.where(weights > 0)[:, 0], tf.int32)
    rows, wanted, weight = tf.gather(hidden, real), tf.gather(targets, real), tf.gather(weights, real)
    count = tf.size(real)
    # Half-precision rows are weighed relative to the heaviest, lest they underflow.
    heaviest = tf.maximum(tf.reduce_max(weights), tf.constant(1e-30))
    weighed = tf.cast(tf.cast(rows, tf.float32) * (weight / heaviest)[:, None], hidden.dtype)
    pieces = tf.TensorArray(tf.float32, size=(count + chunk - 1) // chunk, element_shape=(None, hidden.shape[-1]))

    def step(index: Any, loss: Any, accuracy: Any, pieces: Any, of_table: Any) -> tuple[Any, ...]:
        part = slice(index * chunk, tf.minimum((index + 1) * chunk, count))
        logits = tf.cast(tf.matmul(rows[part], table, transpose_b=True), tf.float32)
        # TensorFlow's own kernel gives the nats and their gradient by the logits in one go.
        nats, of_logits = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=wanted[part])
        chosen = tf.gather(logits, wanted[part], batch_dims=1)
        correct = tf.cast(chosen >= tf.reduce_max(logits, axis=-1), tf.float32)
        loss += tf.reduce_sum(weight[part] * nats)
        accuracy += tf.reduce_sum(weight[part] * correct)
        # Weighed after the product, which is narrower; in float32, where small weights don't vanish.
        of_logits = tf.cast(of_logits, hidden.dtype)
        pieces = pieces.write(index, tf.cast(tf.matmul(of_logits, table), tf.float32) * weight[part][:, None])
        if table_gradient:
            of_table += tf.cast(tf.matmul(of_logits, weighed[part], transpose_a=True), tf.float32)
        return index + 1, loss, accuracy, pieces, of_table

    zero = tf.zeros((), tf.float32)
    of_table = tf.zeros(table.shape if table_gradient else (), tf.float32)
    _, loss, accuracy, pieces, of_table = tf.while_loop(
        lambda index, *_: index * chunk < count,
        step,
        (tf.zeros((), tf.int32), zero, zero, pieces, of_table),
        parallel_iterations=1,
    )
    of_hidden = tf.scatter_nd(real[:, None], pieces.concat(), tf.shape(hidden))
    return loss, accuracy, of_hidden, of_table * heaviest
