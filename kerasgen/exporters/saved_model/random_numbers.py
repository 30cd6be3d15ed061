"""Random numbers of a SavedModel's samplers: functions that are traced once for all of them. Imports TensorFlow."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kerasgen.exporters.saved_model.passes import call
from kerasgen.exporters.tensorflow import namespace as xp
from kerasgen.samplers import randomness

_WORDS = (tf.TensorSpec([None], tf.uint32),) * 2
_PROMPTS = (tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int64))


class RandomNumbers:
    """Keys of prompts, and the numbers drawn by them; of each function one graph, which is traced when it is needed."""

    def __init__(self) -> None:
        self._keys: Any = None
        self._uniforms: dict[int, Any] = {}

    def keys(self, prompts: Any, lengths: Any, seed: Any) -> Any:
        """Return each prompt's key of random numbers, two uint32 `(batch,)`, as in the library's own generation.

        Args:
            prompts: int32 `(batch, length)`, the start token with them.
            lengths: int32 `(batch,)`.
            seed: int64 scalar, the bits of a seed of 64 bits.
        """
        if self._keys is None:
            self._keys = tf.function(_keys, autograph=False).get_concrete_function(*_PROMPTS)
        return call(self._keys, prompts, lengths, seed)

    def uniforms(self, key: Any, places: Any) -> Any:
        """Return one number in [0, 1) for each key and place, float32; see `kerasgen.samplers.randomness.uniforms`.

        Args:
            key: what `keys` returned.
            places: uint32 `(batch,)`, or `(n, batch)`.
        """
        rank = places.shape.rank
        if rank not in self._uniforms:
            shape = tf.TensorSpec([None] * rank, tf.uint32)
            numbers = tf.function(lambda low, high, place: randomness.uniforms(xp, (low, high), place), autograph=False)
            self._uniforms[rank] = numbers.get_concrete_function(*_WORDS, shape)
        return call(self._uniforms[rank], *key, places)


def _keys(prompts: Any, lengths: Any, seed: Any) -> tuple[Any, Any]:
    counted = tf.range(tf.shape(prompts)[1]) < lengths[:, None]
    ids = tf.where(counted, prompts, -1)
    same = tf.reduce_all(tf.equal(ids[None], ids[:, None]), axis=-1)
    row = tf.range(tf.shape(prompts)[0])
    repeat = tf.reduce_sum(tf.cast(tf.logical_and(same, row < row[:, None]), tf.int32), axis=-1)
    words = [
        tf.cast(tf.bitwise.bitwise_and(word, tf.constant(0xFFFFFFFF, tf.int64)), tf.uint32)[None, None]
        for word in (seed, tf.bitwise.right_shift(seed, tf.constant(32, tf.int64)))
    ]
    token_ids = tf.cast(tf.where(counted, prompts, 0), tf.uint32)
    return randomness.prompt_key(xp, (words[0], words[1]), token_ids, counted, tf.cast(repeat, tf.uint32))
