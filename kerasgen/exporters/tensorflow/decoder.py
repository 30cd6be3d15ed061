"""A decoder computed by TensorFlow, for graphs that run without Keras: SavedModel, TFLite, LiteRT-LM.

Each layer is `kerasgen.decoder.block`. Hidden states are rows or columns; the graph says how a layer attends, for each
keeps its cache in a way of its own. Imports TensorFlow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf

from kerasgen.decoder.arithmetic import activate, normalize
from kerasgen.decoder.block import Roles, block
from kerasgen.decoder.config import DecoderConfig, LearnedPositions
from kerasgen.decoder.fusing import fused_name
from kerasgen.decoder.weights import Weights, map_arrays
from kerasgen.errors import ModelArgumentError
from kerasgen.exporters.tensorflow import namespace as xp

# (index of the layer, queries, keys, values) to what the heads gathered, of the queries' shape. Queries are scaled.
Attend: TypeAlias = Callable[[int, Any, Any, Any], Any]
Multiply: TypeAlias = Callable[[Any, Any], Any]


class _Hooks(ABC):
    """What a block computes with; see `kerasgen.decoder.block.Hooks`.

    Args:
        config: the decoder's.
        attend: how a layer attends, by heads.
        multiply: `(hidden state, kernel)` to their product; the kernels lie as it takes them.
        axis: of the features.
    """

    def __init__(self, config: DecoderConfig, attend: Attend, multiply: Multiply, axis: int) -> None:
        self._config, self._attend, self._multiply, self._axis = config, attend, multiply, axis

    def norm(self, hidden: Any, weights: Any) -> Any:
        return normalize(xp, hidden, self._config.norm, weights, self._axis)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """The projections of all these roles, side by side along the features."""
        weights = layer[fused_name(roles)]
        product = self._multiply(hidden, weights["kernel"])
        return product + weights["bias"] if "bias" in weights else product

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        queries, keys, values = self._by_heads(projected)
        return self._joined(self._attend(index, queries * self._config.attention.score_scale, keys, values))

    def activate(self, projected: Any) -> Any:
        part = self._config.feedforward
        if not part.gated:
            return activate(xp, projected, part.activation)
        gate, up = tf.split(projected, 2, axis=self._axis)
        return activate(xp, gate, part.activation) * up

    def drop(self, hidden: Any, site: str) -> Any:
        return hidden

    @abstractmethod
    def _by_heads(self, projected: Any) -> Any: ...

    @abstractmethod
    def _joined(self, gathered: Any) -> Any: ...


class Rows(_Hooks):
    """Hidden states `(batch, length, features)`; by heads `(batch, num_heads, length, head_dim)`.

    Args:
        config: the decoder's.
        attend: how a layer attends, by heads.
        multiply: as in `_Hooks`.
    """

    def __init__(self, config: DecoderConfig, attend: Attend, multiply: Multiply = tf.matmul) -> None:
        super().__init__(config, attend, multiply, -1)

    def _by_heads(self, projected: Any) -> Any:
        heads, size = self._config.attention.num_query_heads, self._config.attention.head_dim
        return (
            tf.transpose(tf.reshape(part, (*_leading(part), heads, size)), (0, 2, 1, 3))
            for part in tf.split(projected, 3, axis=-1)
        )

    def _joined(self, gathered: Any) -> Any:
        rows = tf.transpose(gathered, (0, 2, 1, 3))
        return tf.reshape(rows, (*_leading(rows), self._config.attention.query_dim))


class Columns(_Hooks):
    """Hidden states `(features, rows)`, of a token each; by heads `(rows, num_heads, head_dim)`.

    Kernels are `(out, in)` and vectors `(n, 1)`, as `as_columns` makes them.

    Args:
        config: the decoder's.
        attend: how a layer attends, by heads.
    """

    def __init__(self, config: DecoderConfig, attend: Attend) -> None:
        super().__init__(config, attend, lambda hidden, kernel: tf.matmul(kernel, hidden), 0)

    def _by_heads(self, projected: Any) -> Any:
        heads, size = self._config.attention.num_query_heads, self._config.attention.head_dim
        parts = tf.reshape(projected, (3, heads, size, -1))
        return (tf.transpose(part, (2, 0, 1)) for part in tf.unstack(parts))

    def _joined(self, gathered: Any) -> Any:
        return tf.reshape(tf.transpose(gathered, (1, 2, 0)), (self._config.attention.query_dim, -1))


def as_columns(weights: Weights) -> Weights:
    """Return the weights with vectors as columns `(n, 1)`; matrices stay as they are."""
    return map_arrays(lambda array: array[:, None] if len(array.shape) == 1 else array, weights)


def embed(weights: Weights, token_ids: Any, positions: Any, look_up: Callable[[Any, Any], Any] = tf.gather) -> Any:
    """Return what enters the first layer, as rows.

    Args:
        weights: tensors or variables.
        token_ids: int32, of any shape.
        positions: int32, in a shape that broadcasts to it.
        look_up: `(table, ids)` to rows of the table.
    """
    tables = weights["embedding"]
    return look_up(tables["tokens"], token_ids) + look_up(tables["positions"], positions)


def through(config: DecoderConfig, weights: Weights, hidden: Any, hooks: _Hooks) -> Any:
    """Return the last hidden states, after the final norm.

    Args:
        config: the decoder's.
        weights: tensors or variables, fused.
        hidden: what `embed` gave, in the hooks' layout.
        hooks: `Rows` or `Columns`.
    """
    for index, layer in enumerate(weights["layers"]):
        hidden = block(config, index, layer, hidden, hooks)
    return hooks.norm(hidden, weights["final_norm"])


def logits(weights: Weights, hidden: Any) -> Any:
    """Return the logits of the token after each hidden state: `(…, hidden_dim)` to `(…, vocabulary_size)`."""
    return tf.matmul(hidden, weights["embedding"]["tokens"], transpose_b=True)


def require_computable(config: DecoderConfig) -> None:
    """Check that these graphs compute every trait of a decoder.

    Raises:
        ModelArgumentError: they leave one out, so that they would be of another model.
    """
    attention = config.attention
    left_out = {
        "positions that are not learned": not isinstance(config.positions, LearnedPositions),
        "a norm or a scale of the embeddings": config.embedding_norm is not None or config.embedding_scale != 1.0,
        "key-value heads that several query heads share": attention.num_key_value_heads != attention.num_query_heads,
        "a norm of queries and keys": attention.query_key_norm is not None,
        "a soft cap": attention.soft_cap is not None or config.logit_soft_cap is not None,
        "windows": any(window is not None for window in attention.windows),
        "attention sinks": attention.sinks,
        "experts": config.feedforward.experts is not None,
        "no final norm": not config.final_norm,
        "an output layer of its own": not config.tied_head or config.head_bias or config.logit_scale != 1.0,
    }
    if any(left_out.values()):
        traits = ", ".join(trait for trait, is_there in left_out.items() if is_there)
        raise ModelArgumentError(
            f"Graphs of TensorFlow compute no decoder with {traits}. Received: one of the architecture "
            f"{config.architecture!r}. Export it in another format, such as `preset`."
        )


def _leading(x: Any) -> tuple[Any, Any]:
    """Batch and length: whole numbers where they are known, so that TFLite's graphs stay static."""
    batch, length = x.shape[0], x.shape[1]
    dynamic = tf.shape(x) if batch is None or length is None else None
    return (dynamic[0] if batch is None else batch, dynamic[1] if length is None else length)  # type: ignore[index]
