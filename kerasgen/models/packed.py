"""Token ids become hidden states, with documents that share a row kept apart: the forward pass of GPT-2 and OPT.

It runs `kerasgen.decoder.block` on the weights of KerasHub's layers. The arithmetic is theirs, dropout and adapters
included; the order of work is another: queries, keys and values come from one product, what lies between two products
is one compiled loop, and the backward pass computes again what is cheap. Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import keras
from keras import ops

from kerasgen.decoder.arithmetic import activate
from kerasgen.decoder.block import QUERY_KEY_VALUE, Roles, block
from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.families import family_named

FAMILIES = ("GPT2Backbone", "OPTBackbone")


def hidden_states(backbone: Any, inputs: Mapping[str, Any], *, training: bool | None, remat: bool = False) -> Any:
    """Return the last hidden states of a GPT-2 or OPT backbone under a block-diagonal causal mask.

    Args:
        backbone: a `GPT2Backbone` or an `OPTBackbone`.
        inputs: `token_ids`, `positions` and `segment_ids`, each int32 `(batch, sequence_length)`; or what
            `without_padding` makes of them.
        training: whether dropout is on.
        remat: keep only what enters each layer for the backward pass, and compute the layer again there.

    Returns:
        Float, `token_ids`' shape and `hidden_dim`, in the backbone's compute type.
    """
    if hasattr(backbone, "embeddings"):  # OPT keeps both embeddings in one layer, and has no dropout on their sum
        hidden = backbone.embeddings(inputs["token_ids"], positions=inputs["positions"])
    else:
        tokens = backbone.token_embedding(inputs["token_ids"])
        positions = backbone.position_embedding(tokens, positions=inputs["positions"])
        hidden = backbone.embeddings_add((tokens, positions))
        hidden = backbone.embeddings_dropout(hidden, training=training)
    layers = backbone.transformer_layers
    if not _knows(backbone):
        return backbone.layer_norm(_through_keras(layers, hidden, inputs, training=training, remat=remat))
    width = hidden.shape[-1]
    flat = ops.reshape(hidden, (-1, width))
    layout = inputs.get("layout")
    config = family_named(type(backbone).__name__).shape_of(backbone).config
    for index, layer in enumerate(layers):

        def through(flat: Any, seeds: tuple[Any, ...], index: int = index, layer: Any = layer) -> Any:
            hooks = _Hooks(config, inputs["segment_ids"], layout, float(layer.dropout), seeds)
            return block(config, index, _by_role(layer), flat, hooks)

        # Drawn outside of what may be computed again, where a generator's state could not be kept.
        seeds = _seeds(layer) if training else (None, None, None)
        flat = _recomputed(through, flat, seeds) if remat and training else through(flat, seeds)
    flat = _normalize(backbone.layer_norm, flat)
    return ops.reshape(flat, ops.shape(hidden))


def without_padding(backbone: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the inputs of `hidden_states` and of a loss as one row that has hardly any padding, where that pays.

    Between two attentions a position knows nothing of the others, so that no padding need be computed there. On
    TensorFlow, whose shapes may change from step to step, the positions that hold a token are put first, and of the
    others as many are kept as make a multiple of 64; on other backends the inputs come back as they are.

    Args:
        backbone: a `GPT2Backbone` or an `OPTBackbone`.
        inputs: as `hidden_states` takes them; what else is of their shape, such as targets and weights, goes along.

    Returns:
        The same names, `(1, positions)` each, but for `segment_ids`, which stay, and a `layout` that leads from one
        to the other. A padded position must not weigh in the loss: its gradient is taken to be zero.
    """
    if keras.config.backend() != "tensorflow" or not _knows(backbone):
        return inputs
    from kerasgen.models import kernels_tensorflow

    layout = kernels_tensorflow.layout(inputs["segment_ids"])
    taken = {name: kernels_tensorflow.taken(layout, of) for name, of in inputs.items() if name != "segment_ids"}
    return {**taken, "segment_ids": inputs["segment_ids"], "layout": layout}


def _knows(backbone: Any) -> bool:
    return (
        keras.config.backend() in ("jax", "tensorflow")
        and all(map(_is_known, backbone.transformer_layers))
        and family_named(type(backbone).__name__).has_its_activation(backbone)
    )


def _is_known(layer: Any) -> bool:
    """Whether a layer is KerasHub's decoder as GPT-2 and OPT use it, not one derived from it or quantized."""
    return (
        type(layer).__name__ == "TransformerDecoder"
        and type(layer).__module__.startswith("keras_hub.")
        and layer.normalize_first
        and layer._cross_attention_layer is None
        and getattr(layer._feedforward_output_dense, "quantization_mode", None) is None
    )


def _through_keras(layers: Any, hidden: Any, inputs: Mapping[str, Any], *, training: bool | None, remat: bool) -> Any:
    """The same through KerasHub's own layers, for what the other path does not know."""
    segment_ids = inputs["segment_ids"]
    same_document = ops.equal(ops.expand_dims(segment_ids, 2), ops.expand_dims(segment_ids, 1))
    for layer in layers:

        def block(hidden: Any, layer: Any = layer) -> Any:
            return layer(hidden, decoder_attention_mask=same_document, training=training)

        hidden = keras.remat(block)(hidden) if remat and training else block(hidden)
    return hidden


def _by_role(layer: Any) -> dict[str, Any]:
    """KerasHub's layers of a block by the names of `kerasgen.decoder.weights`: each holds its weights and adapter."""
    attention = layer._self_attention_layer
    return {
        "attention_norm": layer._self_attention_layer_norm,
        "query": attention._query_dense,
        "key": attention._key_dense,
        "value": attention._value_dense,
        "output": attention._output_dense,
        "feedforward_norm": layer._feedforward_layer_norm,
        "up": layer._feedforward_intermediate_dense,
        "down": layer._feedforward_output_dense,
    }


class _Hooks:
    """What one block computes with, on `(batch * sequence_length, hidden_dim)`, or on the positions of a layout.

    Args:
        config: the decoder's.
        segment_ids: int32 `(batch, sequence_length)`.
        layout: which positions the rows are; None for all.
        rate: of dropout.
        seeds: of the dropouts of probabilities, attention and feed-forward part; None where there is none.
    """

    def __init__(self, config: DecoderConfig, segment_ids: Any, layout: Any, rate: float, seeds: tuple[Any, ...]):
        self._config, self._segment_ids, self._layout, self._rate = config, segment_ids, layout, rate
        self._seeds = dict(zip(("probabilities", "attention", "feedforward"), seeds, strict=True))

    def norm(self, hidden: Any, weights: Any) -> Any:
        return _normalize(weights, hidden)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """One role's product, or queries, keys and values side by side."""
        if roles == QUERY_KEY_VALUE:
            return _queries_keys_values([layer[role] for role in roles], hidden)
        return _dense(layer[roles[0]], hidden)

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        seed = self._seeds["probabilities"]
        more = () if self._layout is None else (self._layout,)
        heads = self._config.attention.num_query_heads
        rate = self._rate if seed is not None else 0.0
        return _kernels().attention(projected, self._segment_ids, heads, rate, seed, *more)

    def activate(self, projected: Any) -> Any:
        activation = self._config.feedforward.activation
        if activation == "gelu_approximate":
            return _kernels().gelu(projected)
        return activate(ops, projected, activation)

    def drop(self, hidden: Any, site: str) -> Any:
        return _drop(hidden, self._rate, self._seeds[site])


def _queries_keys_values(parts: list[Any], x: Any) -> Any:
    """Queries, keys and values side by side, `(rows, 3 * hidden_dim)`, from one product."""
    kernel = ops.concatenate([_matrix(part, x) for part in parts], axis=1)
    bias = ops.concatenate([_vector(part.bias, x.dtype) for part in parts])
    together = _kernels().affine(x, kernel, bias)
    if not any(part.lora_enabled for part in parts):
        return together
    return together + ops.concatenate([_adapted(part, x) for part in parts], axis=1)


def _dense(layer: Any, x: Any) -> Any:
    """A dense or einsum-dense layer without its activation, on `(rows, width)`."""
    found = _kernels().affine(x, _matrix(layer, x), _vector(layer.bias, x.dtype))
    return found + _adapted(layer, x) if layer.lora_enabled else found


def _adapted(layer: Any, x: Any) -> Any:
    """What a layer's adapter adds, `(rows, columns)`; zeros where it has none."""
    columns = prod(layer._kernel.shape) // x.shape[-1]
    if not layer.lora_enabled:
        return ops.zeros((ops.shape(x)[0], columns), x.dtype)
    thin_a, thin_b = ops.cast(layer.lora_kernel_a, x.dtype), ops.cast(layer.lora_kernel_b, x.dtype)
    # A kernel of several dimensions, (width, heads, size), is adapted along the last, (width, heads, rank) by
    # (rank, size); one of (heads, size, width) as (heads, size, rank) by (rank, width).
    rank = thin_a.shape[-1]
    rows_in = x.shape[-1]
    between = ops.matmul(x, ops.reshape(thin_a, (rows_in, -1)))
    if thin_a.shape[0] == rows_in:
        between = ops.reshape(between, (-1, prod(thin_a.shape[1:-1]), rank))
        found = ops.reshape(ops.matmul(between, thin_b), (-1, columns))
    else:
        found = ops.matmul(between, thin_b)
    return found * (layer.lora_alpha / layer.lora_rank)


def _matrix(layer: Any, x: Any) -> Any:
    """The kernel of a dense or einsum-dense layer as `(width, columns)`, adapters left out."""
    return ops.reshape(ops.cast(layer._kernel, x.dtype), (x.shape[-1], -1))


def _vector(variable: Any, dtype: Any) -> Any:
    return ops.reshape(ops.cast(variable, dtype), (-1,))


def _normalize(layer: Any, x: Any) -> Any:
    return _kernels().layer_norm(
        x, ops.convert_to_tensor(layer.gamma), ops.convert_to_tensor(layer.beta), layer.epsilon
    )


def _drop(x: Any, rate: float, seed: Any) -> Any:
    return x if seed is None else _kernels().dropout(x, rate, seed)


def _seeds(layer: Any) -> tuple[Any, ...]:
    """Seeds of a layer's three dropouts, from their own generators; None where there is none."""
    if not layer.dropout:
        return None, None, None
    return tuple(
        dropout.seed_generator.next()
        for dropout in (
            layer._self_attention_layer._dropout_layer,
            layer._self_attention_dropout,
            layer._feedforward_dropout,
        )
    )


def _recomputed(block: Any, flat: Any, seeds: tuple[Any, ...]) -> Any:
    if keras.config.backend() == "jax":
        import jax

        return jax.checkpoint(block)(flat, seeds)
    from kerasgen.models import kernels_tensorflow

    return kernels_tensorflow.recomputed(block, flat, seeds)


def _kernels() -> Any:
    if keras.config.backend() == "jax":
        from kerasgen.models import kernels_jax

        return kernels_jax
    from kerasgen.models import kernels_tensorflow

    return kernels_tensorflow
