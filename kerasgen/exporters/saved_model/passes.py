"""Computes a decoder's forward passes with a cache in two parts, as TensorFlow functions. Stateless, for any batch.

The prompts lie in the first part, right-padded and masked; new tokens are appended to the second, so that a step copies
few positions and not the whole cache. In sampling the second part is laid to the first after so many steps; in beam
search the first is shared by a prompt's beams, and only the second follows them. Imports TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from kerasgen import huge_pages
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights, flat, nested
from kerasgen.exporters.tensorflow import decoder
from kerasgen.exporters.tensorflow.attention import LOWEST, Keys, Weigh, over_keys, over_values

_OF_A_LAYER = re.compile(r"^layers\.\d+\.")


def call(function: Any, *arguments: Any, **named: Any) -> Any:
    """Call a function in the graph of another one, and return what it returns.

    The shapes are those that the function was traced with. TensorFlow would infer them anew through its whole body, at
    each call of it and at each call of what calls it: a tenth of a second for twelve layers, and again where the graph
    is loaded.
    """
    unasked = {"_disable_call_shape_inference": attr_value_pb2.AttrValue(b=True)}
    with tf.compat.v1.get_default_graph()._attr_scope(unasked):
        return function(*arguments, **named)


def is_end(token_ids: Any, ends: Any) -> Any:
    """Return which ids end a text, bool of their shape; `ends` is int32 `(ends,)`."""
    return tf.reduce_any(tf.equal(tf.expand_dims(token_ids, -1), ends), axis=-1)


class Cache(NamedTuple):
    """Keys and values, one tensor `(rows, key-value heads, length, head_dim)` for each block.

    Args:
        keys: the keys of each block.
        values: the values of each block.
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]

    def followed_by(self, other: Cache) -> Cache:
        """Return a cache with the other's positions after these."""
        return Cache(*(tuple(map(_concatenated, *parts)) for parts in zip(self, other, strict=True)))


def empty(config: DecoderConfig, rows: Any) -> Cache:
    """Return a cache of so many rows without a position."""
    nothing = tf.zeros((rows, config.attention.num_key_value_heads, 0, config.attention.head_dim))
    return Cache(*((nothing,) * config.num_layers for _ in range(2)))


def any_length(config: DecoderConfig) -> Cache:
    """Return the shapes of a cache whose rows and positions are not known."""
    shape = tf.TensorShape([None, config.attention.num_key_value_heads, None, config.attention.head_dim])
    return Cache(*((shape,) * config.num_layers for _ in range(2)))


def read(config: DecoderConfig, weights: Weights, token_ids: Any) -> tuple[Any, Cache]:
    """Return the hidden states after each token of int32 `(batch, length)`, and the cache of them.

    Args:
        config: the decoder's.
        weights: tensors of `decoder.prepare`; kernels `(out, in)`.
        token_ids: right-padded, if rows are of unequal lengths.
    """
    length = tf.shape(token_ids)[1]
    places = tf.range(length)
    earlier = Keys(mask=tf.where(places[:, None] < places, LOWEST, 0.0), distances=lambda: places[:, None] - places)
    keys: list[Any] = []
    values: list[Any] = []

    def attend(index: int, q: Any, k: Any, v: Any, weigh: Weigh) -> Any:
        keys.append(k)
        values.append(v)
        return over_values(weigh((over_keys(q, k), earlier)), v)

    hidden = decoder.embed(config, weights, token_ids, places)
    hidden = decoder.through(config, weights, hidden, decoder.Rows(config, lambda: places, attend, multiply))
    return hidden, Cache(tuple(keys), tuple(values))


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
        weights: tensors of `decoder.prepare`; kernels `(out, in)`.
        token: int32 `(batch * width,)`.
        places: int32 like `token`, the position of each.
        old: the first part, of `batch` rows.
        mask: bool `(batch, length of old)`, which of its positions count.
        recent: the second part, of `batch * width` rows.
        width: rows that share one of the first part.
    """
    heads = config.attention.num_query_heads
    length = tf.shape(mask)[1]
    before = Keys(
        mask=tf.where(mask, 0.0, LOWEST)[:, None, None],
        distances=lambda: (places[::width, None] - (tf.cumsum(tf.cast(mask, tf.int32), axis=1) - 1))[:, None, None],
    )
    keys: list[Any] = []
    values: list[Any] = []

    def attend(index: int, q: Any, k: Any, v: Any, weigh: Weigh) -> Any:
        keys.append(_concatenated(recent.keys[index], k))
        values.append(_concatenated(recent.values[index], v))
        since = Keys(mask=None, distances=lambda: tf.range(tf.shape(keys[-1])[2] - 1, -1, -1))
        of_old = over_keys(_by_prompt(q, heads, width), old.keys[index])
        of_recent = _by_prompt(over_keys(q, keys[-1]), heads, width)
        likely = weigh((of_old, before), (of_recent, since))
        from_old = _by_row(over_values(likely[..., :length], old.values[index]), heads, width)
        return from_old + over_values(_by_row(likely[..., length:], heads, width), values[-1])

    hidden = decoder.embed(config, weights, token[:, None], places[:, None])
    hooks = decoder.Rows(config, lambda: places[:, None, None], attend, multiply)
    hidden = decoder.through(config, weights, hidden, hooks)
    logits = decoder.logits(config, weights, tf.reshape(hidden, (-1, config.hidden_dim)), multiply)
    return logits, Cache(tuple(keys), tuple(values))


class Packing:
    """Lays the weights of a decoder into few arrays: what a function is given, each call of it names one by one.

    All vectors are one array, and so are the kernels of one kind that all layers have in the same shape, `(layers, out,
    in)`. In a graph each layer's is a part of it that is not copied.

    Args:
        weights: by name, arrays whose shapes are read.
        stacks: whether kernels are laid together. XLA would copy each part of them.
    """

    def __init__(self, weights: Weights, *, stacks: bool) -> None:
        named = flat(weights)
        self._vectors = {name: array.shape for name, array in named.items() if len(array.shape) == 1}
        kinds: dict[tuple[str, Any], list[str]] = {}
        for name, array in named.items():
            if name not in self._vectors:
                kind = _OF_A_LAYER.sub("layers.", name) if stacks else name
                kinds.setdefault((kind, array.shape), []).append(name)
        self._stacks = {names[0] if len(names) == 1 else f"all.{names[0]}": names for names in kinds.values()}
        self._order = list(named)

    def packed(self, weights: Weights) -> Iterator[tuple[str, Any]]:
        """Yield the arrays by name, the vectors as `vectors`; one at a time, for each may be a copy."""
        named = flat(weights)
        yield "vectors", np.concatenate([named[name] for name in self._vectors] or [np.zeros(0, np.float32)])
        for name, parts in self._stacks.items():
            if len(parts) == 1:
                yield name, huge_pages.contiguous(named[name])
                continue
            array = np.empty((len(parts), *named[parts[0]].shape), np.float32)
            for place, part in zip(array, parts, strict=True):
                huge_pages.copy_to(place, named[part])
            yield name, array

    def unpacked(self, packed: Mapping[str, Any]) -> Weights:
        """Return tensors by name, of what `packed` yielded as tensors."""
        sizes = [size for (size,) in self._vectors.values()]
        parts = dict(zip(self._vectors, tf.split(packed["vectors"], sizes) if sizes else (), strict=True))
        for name, names in self._stacks.items():
            parts |= zip(names, [packed[name]] if len(names) == 1 else tf.unstack(packed[name]), strict=True)
        return nested({name: parts[name] for name in self._order})


class Passes:
    """The passes as functions that are traced once, whichever samplers call them.

    Args:
        config: the decoder's.
        packing: of the weights, as the passes take them.
        packed: variables of what `packing` packed; their shapes are read.
    """

    def __init__(self, config: DecoderConfig, packing: Packing, packed: Mapping[str, Any]) -> None:
        self._config, self._packing = config, packing
        arrays = {name: tf.TensorSpec(array.shape, tf.float32) for name, array in packed.items()}
        row, rows = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
        parts = any_length(config)
        cache = Cache(*(tuple(tf.TensorSpec(shape, tf.float32) for shape in part) for part in parts))
        self._read = self._once(read, (arrays, rows))
        self._advance: dict[int, Any] = {}
        self._step = (arrays, row, row, cache, tf.TensorSpec([None, None], tf.bool), cache)

    def _once(self, call: Any, specs: Sequence[Any]) -> Any:
        def traced(packed: dict[str, Any], *given: Any) -> Any:
            return call(self._config, self._packing.unpacked(packed), *given)

        # As one concrete function: a `tf.function` is traced at its first call, and again at a later one.
        return tf.function(traced, autograph=False).get_concrete_function(*specs)

    def read(self, packed: dict[str, Any], token_ids: Any) -> tuple[Any, Cache]:
        """As the function `read`, of packed weights."""
        hidden, cache = call(self._read, packed, token_ids)
        return hidden, Cache(*cache)

    def prefill(self, packed: dict[str, Any], prompts: Any, lengths: Any) -> tuple[Cache, Any, Any]:
        """Return the cache of the prompts, which of its positions count, and the logits after each prompt."""
        hidden, cache = self.read(packed, prompts)
        last = tf.gather(hidden, lengths - 1, batch_dims=1)
        mask = tf.range(tf.shape(prompts)[1]) < lengths[:, None]
        return cache, mask, decoder.logits(self._config, self._packing.unpacked(packed), last, multiply)

    def advance(
        self, packed: dict[str, Any], token: Any, places: Any, old: Cache, mask: Any, recent: Cache, *, width: int = 1
    ) -> tuple[Any, Cache]:
        """As the function `advance`, of packed weights."""
        if width not in self._advance:
            self._advance[width] = self._once(partial(advance, width=width), self._step)
        logits, cache = call(self._advance[width], packed, token, places, old, mask, recent)
        return logits, Cache(*cache)


def multiply(x: Any, kernel: Any) -> Any:
    """Return the product `(…, in)` by `(out, in)`, `(…, out)`, with the kernel first, which is faster (see the log)."""
    columns = tf.transpose(tf.reshape(x, (-1, x.shape[-1])))
    out = tf.transpose(tf.matmul(kernel, columns))
    return tf.reshape(out, tf.concat([tf.shape(x)[:-1], [kernel.shape[0]]], 0))


def _concatenated(first: Any, second: Any) -> Any:
    """Concatenate keys or values along their positions."""
    return tf.concat([first, second], axis=2)


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
