"""Runs several decoding steps as one function, which XLA compiles where the SavedModel runs. Imports TensorFlow.

Activations stand as `(features, rows)` and kernels as `(out, in)`, which XLA multiplies fastest on a CPU when rows are
few (see the log). XLA compiles once for each number of rows and length of the cache, so both are rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.exporters.saved_model.passes import is_end
from kerasgen.exporters.tensorflow import decoder
from kerasgen.exporters.tensorflow.attention import Keys, Weigh

STEPS = 64
"""Steps of one call at most."""

_SHORTEST = 128  # places of the first cache

# Logits `(rows, vocabulary_size)`, numbers of the samplers `(rows,)` and states of UTF-8 `(rows,)` to ids and states.
Chosen = Callable[[Any, Any, Any], tuple[Any, Any]]


class Columns(NamedTuple):
    """Keys and values of every layer; the prompts begin at the first place, and what is new follows the longest.

    Args:
        keys: for each layer float32 `(rows, key-value heads, head_dim, length)`.
        values: for each layer float32 `(rows, key-value heads, length, head_dim)`.
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]

    def padded(self, *, rows: Any, length: Any) -> Columns:
        """Return the cache with so many rows and places, zeros where nothing was."""
        at = tf.shape(self.values[0])
        more, longer = [0, rows - at[0]], [0, length - at[2]]
        return Columns(
            tuple(tf.pad(array, [more, [0, 0], [0, 0], longer]) for array in self.keys),
            tuple(tf.pad(array, [more, [0, 0], longer, [0, 0]]) for array in self.values),
        )


class Texts(NamedTuple):
    """The state of texts that decoding steps change.

    Args:
        step: int32 scalar, tokens that were chosen for each text.
        token: int32 `(rows,)`, the last one of each, which wasn't read yet.
        done: bool `(rows,)`, which texts have ended.
        states: int32 `(rows,)`, of `Utf8Steps`.
        cache: the cache of what was read.
    """

    step: Any
    token: Any
    done: Any
    states: Any
    cache: Columns


class Fixed(NamedTuple):
    """The values that all steps of a call share.

    Args:
        lengths: int32 `(rows,)`, of the prompts.
        given: bool `(rows, longest prompt)`, which places hold a prompt's token.
        end: int32 `(ends,)`, the ids that end a text.
        pad: int32 scalar, what fills ids past a text's end.
    """

    lengths: Any
    given: Any
    end: Any
    pad: Any


def rows_for(batch: Any) -> Any:
    """Return how many rows a batch is filled up to: 1, 2, 4, or a multiple of 8."""
    few = tf.where(batch > 2, 4, batch)
    return tf.where(batch > 4, -(-batch // 8) * 8, few)


def length_for(needed: Any, longest: int) -> Any:
    """Return the length of a cache that holds so many places: a power of two or `longest`, the most that are needed."""
    lengths = [_SHORTEST]
    while lengths[-1] < longest:
        lengths.append(2 * lengths[-1])
    lengths[-1] = max(longest, 1)
    known = tf.constant(lengths)
    return tf.reduce_min(tf.boolean_mask(known, known >= needed))


def advance(
    config: DecoderConfig, weights: Weights, texts: Texts, until: Any, numbers: Any, fixed: Fixed, choose: Chosen
) -> tuple[Texts, Any]:
    """Return the texts after further steps, and the ids that were chosen; the loop is the graph's own.

    Args:
        config: the decoder's.
        weights: tensors of `decoder.prepare`; kernels `(out, in)`.
        texts: as they are.
        until: int32 scalar, the step to end with; at most `STEPS` from here.
        numbers: float32 `(STEPS, rows)`, of the samplers.
        fixed: the fixed values of the call.
        choose: the sampler.

    Returns:
        The texts, and int32 `(rows, STEPS)`, of which the first columns are filled, as many as steps were taken.
    """
    first, prompt = texts.step, tf.shape(fixed.given)[1]
    length = tf.shape(texts.cache.values[0])[2]
    is_prompt = tf.pad(fixed.given, [[0, 0], [0, length - prompt]])
    weights = decoder.as_columns(weights)

    def goes_on(texts: Texts, ids: Any) -> Any:
        return tf.logical_and(texts.step < until, tf.logical_not(tf.reduce_all(texts.done)))

    def body(texts: Texts, ids: Any) -> tuple[Texts, Any]:
        at = prompt + texts.step - 1
        places = tf.range(length)
        seen = tf.logical_or(is_prompt, tf.logical_and(places >= prompt, places <= at))
        where = fixed.lengths + texts.step - 1
        logits, cache = _read(config, weights, texts.token, where, at, seen, texts.cache)
        chosen, states = choose(logits, tf.gather(numbers, texts.step - first), texts.states)
        token = tf.where(texts.done, fixed.pad, chosen)
        ids = xla.dynamic_update_slice(ids, token[:, None], tf.stack([0, texts.step - first]))
        done = tf.logical_or(texts.done, is_end(token, fixed.end))
        return Texts(texts.step + 1, token, done, states, cache), ids

    texts, ids = tf.while_loop(goes_on, body, (texts, tf.zeros((tf.shape(texts.token)[0], STEPS), tf.int32)))
    return texts, ids


def _read(
    config: DecoderConfig, weights: Weights, token: Any, where: Any, at: Any, seen: Any, cache: Columns
) -> tuple[Any, Columns]:
    """The logits after one more token of each row, `(rows, vocabulary_size)`, and the cache with it.

    Args:
        config: the decoder's.
        weights: tensors, vectors as columns.
        token: int32 `(rows,)`.
        where: int32 `(rows,)`, the position of each in its text.
        at: int32 scalar, the place of the cache for all of them.
        seen: bool `(rows, length)`, the places that they attend to.
        cache: the cache of what was read before.
    """
    keys, values = [], []
    earlier = Keys(
        mask=seen[:, None],
        distances=lambda: (where[:, None] - (tf.cumsum(tf.cast(seen, tf.int32), axis=1) - 1))[:, None],
    )

    def attend(index: int, query: Any, key: Any, value: Any, weigh: Weigh) -> Any:
        keys.append(xla.dynamic_update_slice(cache.keys[index], key[..., None], tf.stack([0, 0, 0, at])))
        values.append(xla.dynamic_update_slice(cache.values[index], value[:, :, None], tf.stack([0, 0, at, 0])))
        likely = weigh((_over_keys(query, keys[-1]), earlier))
        return _over_values(likely, values[-1])

    hidden = tf.transpose(decoder.embed(config, weights, token, where))
    hidden = decoder.through(config, weights, hidden, decoder.Columns(config, lambda: where[:, None], attend))
    return decoder.logits(config, weights, hidden, _rows_of_logits), Columns(tuple(keys), tuple(values))


def _over_keys(query: Any, keys: Any) -> Any:
    """Scores `(rows, heads, length)` of queries `(rows, heads, head_dim)`; several heads may share a key's."""
    groups = query.shape[1] // keys.shape[1]
    if groups == 1:  # sums along the second last axis are vector loops; a product of one row is not
        return tf.reduce_sum(query[..., None] * keys, axis=2)
    grouped = tf.reshape(query, (-1, keys.shape[1], groups, query.shape[2]))
    return tf.reshape(tf.matmul(grouped, keys), (tf.shape(query)[0], query.shape[1], -1))


def _over_values(likely: Any, values: Any) -> Any:
    """Sums `(rows, heads, head_dim)` of values by attention weights `(rows, heads, length)`."""
    groups = likely.shape[1] // values.shape[1]
    if groups == 1:
        return tf.reduce_sum(likely[..., None] * values, axis=2)
    grouped = tf.reshape(likely, (tf.shape(likely)[0], values.shape[1], groups, -1))
    return tf.reshape(tf.matmul(grouped, values), (-1, likely.shape[1], values.shape[3]))


def _rows_of_logits(hidden: Any, table: Any) -> Any:
    # The barrier keeps XLA from turning the product round with its result, which would take twice as long.
    return tf.transpose(_barrier(tf.matmul(table, hidden)))


def _barrier(x: Any) -> Any:
    kept_apart: Sequence[Any] = xla.optimization_barrier(x)
    return kept_apart[0]
