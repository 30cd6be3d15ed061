"""A decoder family's arithmetic in plain TensorFlow, for graphs that run without Keras: SavedModel, TFLite, LiteRT-LM.

The caller says how a block attends, for each artefact keeps its cache in a way of its own. Imports TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from kerasgen.models.families.base import DecoderLayer, DecoderShape, DecoderWeights

# (index of the block, queries, keys, values), each `(batch, num_heads, length, head_dim)`, to what the heads gathered,
# of the same shape.
Attend: TypeAlias = Callable[[int, Any, Any, Any], Any]


def hidden_states(
    weights: DecoderWeights,
    shape: DecoderShape,
    token_ids: Any,
    positions: Any,
    attend: Attend,
    look_up: Callable[[Any, Any], Any] = tf.gather,
    multiply: Callable[[Any, Any], Any] = tf.matmul,
) -> Any:
    """Return the last hidden states, after the final norm.

    Args:
        weights: tensors or variables.
        shape: of the decoder.
        token_ids: int32 `(batch, length)`.
        positions: int32 like `token_ids`, or `(length,)` if all rows stand at the same.
        attend: how each block attends; queries are scaled already.
        look_up: `(table, ids)` to rows of the table.
        multiply: `(activations, kernel)` to their product; the kernels lie as it takes them.

    Returns:
        Float `(batch, length, hidden_dim)`.
    """
    hidden = look_up(weights.token_embedding, token_ids) + look_up(weights.position_embedding, positions)
    for index, layer in enumerate(weights.layers):
        hidden = _block(layer, shape, hidden, index, attend, multiply)
    return layer_norm(hidden, weights.final_gamma, weights.final_beta, shape.layer_norm_epsilon)


def logits(weights: DecoderWeights, hidden: Any) -> Any:
    """Return the logits of the token after each hidden state: `(…, hidden_dim)` to `(…, vocabulary_size)`."""
    return tf.matmul(hidden, weights.token_embedding, transpose_b=True)


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Return `x` with mean 0 and variance 1 along its last axis, scaled and shifted."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    centred = x - mean
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon) * gamma + beta


def activate(x: Any, activation: str) -> Any:
    """Return the activation of a feed-forward part."""
    return tf.nn.relu(x) if activation == "relu" else tf.nn.gelu(x, approximate=True)


def _block(
    layer: DecoderLayer,
    shape: DecoderShape,
    hidden: Any,
    index: int,
    attend: Attend,
    multiply: Callable[[Any, Any], Any],
) -> Any:
    width, heads = shape.hidden_dim, shape.num_heads
    normed = layer_norm(hidden, layer.attention_gamma, layer.attention_beta, shape.layer_norm_epsilon)
    together = multiply(normed, layer.qkv_kernel) + layer.qkv_bias
    queries, keys, values = (_split_heads(part, heads, shape.head_dim) for part in tf.split(together, 3, axis=-1))
    gathered = attend(index, queries * (1.0 / math.sqrt(shape.head_dim)), keys, values)
    joined = tf.reshape(tf.transpose(gathered, (0, 2, 1, 3)), _like(hidden, width))
    hidden = hidden + multiply(joined, layer.output_kernel) + layer.output_bias
    normed = layer_norm(hidden, layer.feedforward_gamma, layer.feedforward_beta, shape.layer_norm_epsilon)
    wide = activate(multiply(normed, layer.up_kernel) + layer.up_bias, shape.activation)
    return hidden + multiply(wide, layer.down_kernel) + layer.down_bias


def _split_heads(x: Any, heads: int, head_dim: int) -> Any:
    """`(batch, length, heads * head_dim)` to `(batch, heads, length, head_dim)`."""
    split = tf.reshape(x, (*_leading(x), heads, head_dim))
    return tf.transpose(split, (0, 2, 1, 3))


def _like(x: Any, width: int) -> tuple[Any, ...]:
    return (*_leading(x), width)


def _leading(x: Any) -> tuple[Any, Any]:
    """Batch and length: whole numbers where they are known, so that TFLite's graphs stay static."""
    batch, length = x.shape[0], x.shape[1]
    dynamic = tf.shape(x) if batch is None or length is None else None
    return (dynamic[0] if batch is None else batch, dynamic[1] if length is None else length)  # type: ignore[index]
