"""A decoder computed by TensorFlow, for graphs that run without Keras: SavedModel, TFLite, LiteRT-LM.

Each layer is `kerasgen.decoder.block`. Hidden states are rows or columns; the graph says how a layer attends, for each
keeps its cache in a way of its own. Imports TensorFlow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import tensorflow as tf

from kerasgen.decoder.arithmetic import activate, gated, normalize, routing_weights, soft_cap
from kerasgen.decoder.block import DOWN, GATE_UP, QUERY_KEY_VALUE, ROUTER, UP, Roles, block, shared_expert
from kerasgen.decoder.config import DecoderConfig, LearnedPositions, RotaryPositions
from kerasgen.decoder.fusing import fused, fused_name
from kerasgen.decoder.rotary_scaling import DynamicScaling, LongRopeScaling
from kerasgen.decoder.weights import Weights, map_named
from kerasgen.errors import ModelArgumentError
from kerasgen.exporters.tensorflow import namespace as xp
from kerasgen.exporters.tensorflow.attention import AttentionRules, Weigh, sizes

# (index of the layer, queries, keys, values, `AttentionRules.weights` of the layer) to what the heads gathered, of the
# queries' shape. Queries and keys are normed and rotated, and queries scaled.
Attend: TypeAlias = Callable[[int, Any, Any, Any, Weigh], Any]
Multiply: TypeAlias = Callable[[Any, Any], Any]


class _Hooks(ABC):
    """What a block computes with; see `kerasgen.decoder.block.Hooks`.

    Args:
        config: the decoder's.
        places: returns the tokens' positions; as in `AttentionRules`.
        attend: how a layer attends, by heads.
        multiply: `(hidden state, kernel)` to their product; the kernels lie as it takes them.
        axis: of the features.
    """

    def __init__(
        self, config: DecoderConfig, places: Callable[[], Any], attend: Attend, multiply: Multiply, axis: int
    ) -> None:
        self._config, self._attend, self._multiply, self._axis = config, attend, multiply, axis
        self._rules = AttentionRules(config, places)

    def norm(self, hidden: Any, weights: Any) -> Any:
        # TFLite's converter would fold a scale that stands alone before a kernel into a copy of it: of a tied output
        # layer, a second table.
        norm = self._config.norm
        if norm.bias and "bias" not in weights:  # the products behind it have it
            return normalize(xp, hidden, replace(norm, bias=False), weights, self._axis)
        return normalize(xp, hidden, norm, weights, self._axis, scale_first=not norm.bias)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """Project onto all these roles, side by side along the features."""
        weights = layer[fused_name(roles)]
        product = self._multiply(hidden, weights["kernel"])
        return product + weights["bias"] if "bias" in weights else product

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        prepared = []
        for role, heads in zip(QUERY_KEY_VALUE, self._heads(projected), strict=True):
            if role == "value":
                prepared.append(self._by_heads(heads))
                continue
            heads = self._rules.rotated(index, self._by_heads(self._normed(heads, layer.get(f"{role}_norm"))))
            prepared.append(heads * self._config.attention.score_scale if role == "query" else heads)
        queries, keys, values = prepared
        return self._joined(self._attend(index, queries, keys, values, partial(self._rules.weights, index, layer)))

    def activate(self, projected: Any) -> Any:
        part = self._config.feedforward
        if not part.gated:
            return activate(xp, projected, part.activation)
        gate, up = tf.split(projected, 2, axis=self._axis)
        return gated(xp, gate, up, part)

    def drop(self, hidden: Any, site: str) -> Any:
        return hidden

    def experts(self, hidden: Any, layer: Mapping[str, Any]) -> Any:
        """Return the weighted sum of each token's likeliest experts; all experts are computed."""
        part = self._config.feedforward
        settings = part.experts
        assert settings is not None
        weights, _, _ = routing_weights(xp, self._turned(self.project(hidden, layer, ROUTER)), settings)
        roles = GATE_UP if part.gated else UP
        total: Any = 0.0
        for number in range(settings.num_experts):
            own = layer["experts"][str(number)]
            made = self.project(self.activate(self.project(hidden, own, roles)), own, DOWN)
            total = total + self._turned(weights[..., number : number + 1]) * made
        if settings.shared_dim:
            share = tf.sigmoid(self.project(hidden, layer, ("shared_router",)))
            total = total + share * shared_expert(self._config, layer, hidden, self)
        return total

    def _split(self, projected: Any) -> Iterable[Any]:
        """Split into queries, keys and values along the features."""
        attention = self._config.attention
        if attention.query_dim == attention.key_value_dim:
            return tf.split(projected, 3, axis=self._axis)  # type: ignore[no-any-return]
        widths = [attention.query_dim, attention.key_value_dim, attention.key_value_dim]
        return tf.split(projected, widths, axis=self._axis)  # type: ignore[no-any-return]

    def _normed(self, heads: Any, weights: Mapping[str, Any] | None) -> Any:
        """Norm queries or keys of `_heads` where the description says so."""
        attention = self._config.attention
        if attention.query_key_norm is None or weights is None:
            return heads
        if attention.query_key_norm_axis == "head":
            return normalize(xp, heads, attention.query_key_norm, weights, self._norm_axes[-1])
        of_heads = {name: self._like_heads(vector) for name, vector in weights.items()}
        return normalize(xp, heads, attention.query_key_norm, of_heads, self._norm_axes)

    _norm_axes: tuple[int, int]  # of the heads and their dimensions, in what `_heads` gives

    @abstractmethod
    def _heads(self, projected: Any) -> Iterable[Any]: ...

    @abstractmethod
    def _by_heads(self, heads: Any) -> Any: ...

    @abstractmethod
    def _joined(self, gathered: Any) -> Any: ...

    @abstractmethod
    def _like_heads(self, vector: Any) -> Any:
        """Reshape a vector of all heads so that it broadcasts to what `_heads` gives."""

    @abstractmethod
    def _turned(self, x: Any) -> Any:
        """Move the features to the last axis, or back."""


class Rows(_Hooks):
    """Hidden states `(batch, length, features)`; by heads `(batch, heads, length, head_dim)`.

    Args:
        config: the decoder's.
        places: returns the tokens' positions, int32 `(length,)` or `(batch, 1, length)`.
        attend: how a layer attends, by heads.
        multiply: as in `_Hooks`.
    """

    _norm_axes = (-2, -1)

    def __init__(
        self, config: DecoderConfig, places: Callable[[], Any], attend: Attend, multiply: Multiply = tf.matmul
    ) -> None:
        super().__init__(config, places, attend, multiply, -1)

    def _heads(self, projected: Any) -> Iterable[Any]:
        attention = self._config.attention
        counts = (attention.num_query_heads, attention.num_key_value_heads, attention.num_key_value_heads)
        for heads, part in zip(counts, self._split(projected), strict=True):
            yield tf.reshape(part, (*sizes(part)[:2], heads, attention.head_dim))

    def _by_heads(self, heads: Any) -> Any:
        return tf.transpose(heads, (0, 2, 1, 3))

    def _joined(self, gathered: Any) -> Any:
        rows = tf.transpose(gathered, (0, 2, 1, 3))
        return tf.reshape(rows, (*sizes(rows)[:2], self._config.attention.query_dim))

    def _like_heads(self, vector: Any) -> Any:
        return tf.reshape(vector, (-1, self._config.attention.head_dim))

    def _turned(self, x: Any) -> Any:
        return x


class Columns(_Hooks):
    """Hidden states `(features, rows)`, of a token each; by heads `(rows, heads, head_dim)`.

    Kernels are `(out, in)` and vectors `(n, 1)`, as `as_columns` makes them.

    Args:
        config: the decoder's.
        places: returns the tokens' positions, int32 `(rows, 1)`.
        attend: how a layer attends, by heads.
    """

    _norm_axes = (0, 1)

    def __init__(self, config: DecoderConfig, places: Callable[[], Any], attend: Attend) -> None:
        super().__init__(config, places, attend, lambda hidden, kernel: tf.matmul(kernel, hidden), 0)

    def _heads(self, projected: Any) -> Iterable[Any]:
        attention = self._config.attention
        if attention.query_dim == attention.key_value_dim:
            yield from tf.unstack(tf.reshape(projected, (3, attention.num_query_heads, attention.head_dim, -1)))
            return
        for part in self._split(projected):
            yield tf.reshape(part, (part.shape[0] // attention.head_dim, attention.head_dim, -1))

    def _by_heads(self, heads: Any) -> Any:
        return tf.transpose(heads, (2, 0, 1))

    def _joined(self, gathered: Any) -> Any:
        return tf.reshape(tf.transpose(gathered, (1, 2, 0)), (self._config.attention.query_dim, -1))

    def _like_heads(self, vector: Any) -> Any:
        return tf.reshape(vector, (-1, self._config.attention.head_dim, 1))

    def _turned(self, x: Any) -> Any:
        return tf.transpose(x)


def prepare(config: DecoderConfig, weights: Weights) -> Weights:
    """Return NumPy weights as these graphs take them.

    What one product computes is fused, each expert stands by itself, and an output layer of its own is a table
    `(vocabulary_size, hidden_dim)`, as that of the tokens is.

    Args:
        config: the decoder's.
        weights: by the names of `kerasgen.decoder.weights`.
    """
    prepared = fused(weights)
    if not config.tied_head:
        head = dict(prepared["head"])
        prepared["head"] = {"table": head.pop("kernel").T.copy(), **head}
    prepared["layers"] = [
        _by_expert(config, layer) if config.has_experts(index) else layer
        for index, layer in enumerate(prepared["layers"])
    ]
    return prepared


def _by_expert(config: DecoderConfig, layer: Mapping[str, Any]) -> dict[str, Any]:
    assert config.feedforward.experts is not None
    split_layer = dict(layer)
    names = (fused_name(GATE_UP if config.feedforward.gated else UP), "down")
    parts = {name: split_layer.pop(name) for name in names}
    split_layer["experts"] = {
        str(number): {name: {leaf: array[number] for leaf, array in part.items()} for name, part in parts.items()}
        for number in range(config.feedforward.experts.num_experts)
    }
    return split_layer


def as_columns(weights: Weights) -> Weights:
    """Return the weights with the layers' vectors as columns `(n, 1)`; matrices and the embeddings' stay as they are.

    So do those of the output layer, which gives rows.
    """

    def turned(name: str, array: Any) -> Any:
        is_vector = len(array.shape) == 1 and not name.startswith(("embedding.", "head."))
        return array[:, None] if is_vector else array

    return map_named(turned, weights)


def embed(
    config: DecoderConfig,
    weights: Weights,
    token_ids: Any,
    places: Any,
    look_up: Callable[[Any, Any], Any] = tf.gather,
) -> Any:
    """Return the embeddings that enter the first layer, as rows.

    Args:
        config: the decoder's.
        weights: tensors or variables.
        token_ids: int32, of any shape.
        places: int32, the tokens' positions, in a shape that broadcasts to it.
        look_up: `(table, ids)` to rows of the table.
    """
    tables = weights["embedding"]
    hidden = look_up(tables["tokens"], token_ids)
    if config.embedding_scale != 1.0:
        hidden = hidden * config.embedding_scale
    if isinstance(config.positions, LearnedPositions):
        hidden = hidden + look_up(tables["positions"], places)
    if config.embedding_norm is not None:
        hidden = normalize(xp, hidden, config.embedding_norm, tables["norm"])
    return hidden


def through(config: DecoderConfig, weights: Weights, hidden: Any, hooks: _Hooks) -> Any:
    """Return the last hidden states, after the final norm.

    Args:
        config: the decoder's.
        weights: tensors or variables, as `prepare` made them.
        hidden: what `embed` gave, in the hooks' layout.
        hooks: `Rows` or `Columns`.
    """
    for index, layer in enumerate(weights["layers"]):
        hidden = block(config, index, layer, hidden, hooks)
    return hooks.norm(hidden, weights["final_norm"]) if config.final_norm else hidden


def output_table(config: DecoderConfig, weights: Weights) -> Any:
    """Return the output layer as a table `(vocabulary_size, hidden_dim)`, of weights as `prepare` made them."""
    return weights["embedding"]["tokens"] if config.tied_head else weights["head"]["table"]


def _product(hidden: Any, table: Any) -> Any:
    return tf.matmul(hidden, table, transpose_b=True)


def logits(config: DecoderConfig, weights: Weights, hidden: Any, multiply: Multiply = _product) -> Any:
    """Return the logits of the token after each hidden state: `(…, hidden_dim)` to `(…, vocabulary_size)`.

    Args:
        config: the decoder's.
        weights: tensors or variables, as `prepare` made them.
        hidden: after the final norm.
        multiply: `(hidden state, table)` to their product.
    """
    rows = multiply(hidden, output_table(config, weights))
    if config.head_bias:
        rows = rows + weights["head"]["bias"]
    if config.logit_scale != 1.0:
        rows = rows * config.logit_scale
    return soft_cap(xp, rows, config.logit_soft_cap)


def require_computable(config: DecoderConfig, longest: int) -> None:
    """Check that these graphs compute every trait of a decoder.

    Args:
        config: the decoder's.
        longest: tokens that a text can have.

    Raises:
        ModelArgumentError: they leave one out, so that they would be of another model.
    """
    for positions in (config.positions, *config.positions_by_layer):
        scaling = positions.scaling if isinstance(positions, RotaryPositions) else None
        if isinstance(scaling, DynamicScaling | LongRopeScaling) and longest > scaling.original_length:
            raise ModelArgumentError(
                f"Beyond {scaling.original_length} tokens the rotary frequencies of this {config.architecture!r} "
                "depend on a whole text's length, and graphs of TensorFlow read a text part by part. Received: texts "
                f"of up to {longest} tokens, and {scaling!r:.200}. Export texts of at most {scaling.original_length} "
                "tokens (`max_sequence_length` of a SavedModel, `cache_length` of TFLite and LiteRT-LM), or in "
                "another format, such as `preset`."
            )
