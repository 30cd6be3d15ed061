"""A decoder's forward passes with a cache in two parts, as TensorFlow functions. Stateless, for any batch.

The prompts lie in the first part, right-padded and masked; new tokens are appended to the second, so that a step copies
few positions and not the whole cache. In sampling the second part is laid to the first after so many steps; in beam
search the first is shared by a prompt's beams, and only the second follows them. Imports TensorFlow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.exporters.tensorflow import decoder

_LOWEST = -1e30  # far below any score, and no infinity that could become NaN


class Cache(NamedTuple):
    """Keys and values, one tensor `(rows, num_heads, length, head_dim)` for each block.

    Args:
        keys: of each block.
        values: of each block.
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]

    def followed_by(self, other: Cache) -> Cache:
        """Return a cache with the other's positions after these."""
        return Cache(*(tuple(map(_after, *parts)) for parts in zip(self, other, strict=True)))


def empty(config: DecoderConfig, rows: Any) -> Cache:
    """Return a cache of so many rows without a position."""
    nothing = tf.zeros((rows, config.attention.num_key_value_heads, 0, config.attention.head_dim))
    return Cache(*((nothing,) * config.num_layers for _ in range(2)))


def any_length(config: DecoderConfig) -> Cache:
    """Return the shapes of a cache whose rows and positions are not known."""
    one = tf.TensorShape([None, config.attention.num_key_value_heads, None, config.attention.head_dim])
    return Cache(*((one,) * config.num_layers for _ in range(2)))


def read(config: DecoderConfig, weights: Weights, token_ids: Any) -> tuple[Any, Cache]:
    """Return the hidden states after each token of int32 `(batch, length)`, and the cache of them.

    Args:
        config: the decoder's.
        weights: fused tensors; kernels `(out, in)`.
        token_ids: right-padded, if rows are of unequal lengths.
    """
    length = tf.shape(token_ids)[1]
    places = tf.range(length)
    future = tf.where(places[:, None] < places, _LOWEST, 0.0)
    keys: list[Any] = []
    values: list[Any] = []

    def attend(index: int, q: Any, k: Any, v: Any) -> Any:
        keys.append(k)
        values.append(v)
        return tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) + future), v)

    hidden = _through(config, weights, token_ids, places, attend)
    return hidden, Cache(tuple(keys), tuple(values))


def prefill(config: DecoderConfig, weights: Weights, prompts: Any, lengths: Any) -> tuple[Cache, Any, Any]:
    """Return the cache of the prompts, which of its positions count, and the logits after each prompt."""
    hidden, cache = read(config, weights, prompts)
    last = tf.gather(hidden, lengths - 1, batch_dims=1)
    mask = tf.range(tf.shape(prompts)[1]) < lengths[:, None]
    return cache, mask, multiply(last, weights["embedding"]["tokens"])


def advance(
    config: DecoderConfig,
    weights: Weights,
    token: Any,
    places: Any,
    old: Cache,
    mask: Any,
    recent: Cache,
    *,
    width: int = 1,
) -> tuple[Any, Cache]:
    """Return the logits after one more token of each row, and the second part of the cache with it.

    Args:
        config: the decoder's.
        weights: fused tensors; kernels `(out, in)`.
        token: int32 `(batch * width,)`.
        places: int32 like `token`, the position of each.
        old: the first part, of `batch` rows.
        mask: bool `(batch, length of old)`, which of its positions count.
        recent: the second part, of `batch * width` rows.
        width: rows that share one of the first part.
    """
    heads = config.attention.num_query_heads
    hidden_before = tf.where(mask, 0.0, _LOWEST)[:, None, None]
    length = tf.shape(mask)[1]
    keys: list[Any] = []
    values: list[Any] = []

    def attend(index: int, q: Any, k: Any, v: Any) -> Any:
        keys.append(_after(recent.keys[index], k))
        values.append(_after(recent.values[index], v))
        of_old = tf.matmul(_by_prompt(q, heads, width), old.keys[index], transpose_b=True) + hidden_before
        of_recent = _by_prompt(tf.matmul(q, keys[-1], transpose_b=True), heads, width)
        likely = tf.nn.softmax(tf.concat([of_old, of_recent], axis=-1))
        from_old = _by_row(tf.matmul(likely[..., :length], old.values[index]), heads, width)
        return from_old + tf.matmul(_by_row(likely[..., length:], heads, width), values[-1])

    hidden = _through(config, weights, token[:, None], places[:, None], attend)
    logits = multiply(tf.reshape(hidden, (-1, config.hidden_dim)), weights["embedding"]["tokens"])
    return logits, Cache(tuple(keys), tuple(values))


def _through(config: DecoderConfig, weights: Weights, token_ids: Any, positions: Any, attend: decoder.Attend) -> Any:
    hidden = decoder.embed(weights, token_ids, positions)
    return decoder.through(config, weights, hidden, decoder.Rows(config, attend, multiply))


def multiply(x: Any, kernel: Any) -> Any:
    """Return the product `(…, in)` by `(out, in)`, `(…, out)`, with the kernel first, which is faster (see the log)."""
    columns = tf.transpose(tf.reshape(x, (-1, x.shape[-1])))
    out = tf.transpose(tf.matmul(kernel, columns))
    return tf.reshape(out, tf.concat([tf.shape(x)[:-1], [kernel.shape[0]]], 0))


def _after(one: Any, other: Any) -> Any:
    """Keys or values of positions that follow others."""
    return tf.concat([one, other], axis=2)


def _by_prompt(x: Any, heads: int, width: int) -> Any:
    """`(batch * width, heads, 1, n)` to `(batch, heads, width, n)`."""
    if width == 1:
        return x
    return tf.transpose(tf.reshape(x, (-1, width, heads, tf.shape(x)[-1])), (0, 2, 1, 3))


def _by_row(x: Any, heads: int, width: int) -> Any:
    """`(batch, heads, width, n)` to `(batch * width, heads, 1, n)`."""
    if width == 1:
        return x
    return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, heads, 1, tf.shape(x)[-1]))
