"""Scores queries against keys in TensorFlow's graphs, for all formats. Imports TensorFlow.

A graph lays out its cache, multiplies queries with it, and says which keys a query sees. What the description says of
rotation, soft caps, windows, ALiBi and sinks is computed here. By heads, queries and keys are `(…, heads, [length,]
head_dim)`, and scores have the queries' shape with the keys in place of the last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from kerasgen.decoder import positions
from kerasgen.decoder.arithmetic import attention_weights, soft_cap
from kerasgen.decoder.config import AlibiPositions, DecoderConfig, Positions, RotaryPositions
from kerasgen.errors import ModelArgumentError
from kerasgen.exporters.tensorflow import namespace as xp

LOWEST = -1e30  # far below any score, and no infinity that could become NaN


class Keys(NamedTuple):
    """The keys that queries see, and their distances before the queries.

    Args:
        mask: in a shape that broadcasts to scores; float, to be added, or bool, false where a key is not seen. None
            where all are seen.
        distances: returns a query's position less a key's, int32, in such a shape. It is called where a layer has a
            window or ALiBi.
    """

    mask: Any
    distances: Callable[[], Any]


# Pairs of scores and `Keys`, laid side by side along the last axis, to the attention weights of all of them.
Weigh: TypeAlias = Callable[..., Any]


class AttentionRules:
    """A description's rules for queries, keys and scores, for the tokens of one pass.

    Args:
        config: the decoder's.
        places: returns the tokens' positions, int32, in a shape that broadcasts to queries without their last axis. It
            is called where a layer's positions are rotary.
    """

    def __init__(self, config: DecoderConfig, places: Callable[[], Any]) -> None:
        self._config, self._places = config, places
        self._angles: dict[Positions, tuple[Any, Any]] = {}

    def rotated(self, index: int, heads: Any) -> Any:
        """Return queries or keys by heads, rotated by their positions where this layer's are rotary."""
        kind = self._config.positions_of(index)
        if not isinstance(kind, RotaryPositions):
            return heads
        if kind not in self._angles:  # all layers of these positions share them
            of = positions.frequencies(kind, self._config.attention.head_dim, 0)
            self._angles[kind] = positions.angles(xp, tf.cast(self._places(), tf.float32), of)
        return positions.rotate(xp, heads, *self._angles[kind], kind)

    def weights(self, index: int, layer: Mapping[str, Any], *scored: tuple[Any, Keys]) -> Any:
        """Return the attention weights of scores.

        Args:
            index: the index of the layer.
            layer: its weights.
            *scored: scores by heads, and their keys; several are laid side by side along the last axis.
        """
        parts = [self._seen(index, scores, keys) for scores, keys in scored]
        scores = parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
        if not self._config.attention.sinks:
            return tf.nn.softmax(scores)
        return attention_weights(xp, scores, _by_head(layer["sinks"], scores))

    def _seen(self, index: int, scores: Any, keys: Keys) -> Any:
        attention, kind, window = self._config.attention, self._config.positions_of(index), self._config.window(index)
        scores = soft_cap(xp, scores, attention.soft_cap)
        if isinstance(kind, AlibiPositions):
            slopes = positions.alibi_slopes(attention.num_query_heads) * kind.scale
            scores = scores - _by_head(slopes, scores) * tf.cast(keys.distances(), tf.float32)
        if window is not None:
            scores = tf.where(keys.distances() < window, scores, LOWEST)
        if keys.mask is None:
            return scores
        return tf.where(keys.mask, scores, LOWEST) if keys.mask.dtype == tf.bool else scores + keys.mask


def require_no_distances(config: DecoderConfig, what: str) -> None:
    """Raise if any layer's attention depends on the distance from query to key.

    Raises:
        ModelArgumentError: one has a window or ALiBi.
    """
    asks = any(
        config.window(layer) is not None or isinstance(config.positions_of(layer), AlibiPositions)
        for layer in range(config.num_layers)
    )
    if asks:
        raise ModelArgumentError(
            f"{what} of a decoder with windows or ALiBi. Received: one of the architecture {config.architecture!r}."
        )


def over_keys(queries: Any, keys: Any) -> Any:
    """Return the scores `(batch, heads, length, n)` of queries `(batch, heads, length, head_dim)`.

    Args:
        queries: the queries of all heads.
        keys: `(batch, key-value heads, n, head_dim)`; several query heads may share one.
    """
    groups = queries.shape[1] // keys.shape[1]
    if groups == 1:
        return tf.matmul(queries, keys, transpose_b=True)
    return _ungrouped(tf.matmul(_grouped(queries, groups), keys, transpose_b=True), queries)


def over_values(weights: Any, values: Any) -> Any:
    """Return the sums of values `(batch, key-value heads, n, head_dim)` by weights `(batch, heads, length, n)`."""
    groups = weights.shape[1] // values.shape[1]
    if groups == 1:
        return tf.matmul(weights, values)
    return _ungrouped(tf.matmul(_grouped(weights, groups), values), weights)


def _grouped(x: Any, groups: int) -> Any:
    """`(batch, heads, length, n)` to `(batch, key-value heads, groups * length, n)`."""
    batch, heads, length, size = sizes(x)
    return tf.reshape(x, (batch, heads // groups, groups * length, size))


def _ungrouped(x: Any, like: Any) -> Any:
    return tf.reshape(x, (*sizes(like)[:3], sizes(x)[-1]))


def sizes(x: Any) -> list[Any]:
    """Return a shape's dimensions: whole numbers where they are known, so that TFLite's graphs stay static."""
    dynamic = None if x.shape.is_fully_defined() else tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(x.shape)]  # type: ignore[index]


def _by_head(values: Any, scores: Any) -> Any:
    """Reshape one value per head so that it broadcasts to scores, whose second axis is the heads."""
    return tf.reshape(tf.convert_to_tensor(values), (-1, *[1] * (len(scores.shape) - 2)))
