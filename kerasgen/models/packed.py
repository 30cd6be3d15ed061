"""Token ids become hidden states, with documents that share a row kept apart, for architectures with a table of names.

It runs `kerasgen.decoder.block` on the weights of KerasHub's layers. The arithmetic is theirs, dropout and adapters
included; the order of work is another: queries, keys and values come from one product, what lies between two products
is one compiled loop, and the backward pass computes again what is cheap. Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from operator import attrgetter
from typing import Any, cast

import keras
from keras import ops

from kerasgen.decoder import positions
from kerasgen.decoder.arithmetic import activate, normalize
from kerasgen.decoder.block import GATE_UP, QUERY_KEY_VALUE, Roles, block
from kerasgen.decoder.config import Attention, DecoderConfig, LearnedPositions, RotaryPositions
from kerasgen.decoder.rotary_scaling import DynamicScaling, LongRopeScaling
from kerasgen.models import architectures
from kerasgen.models.architectures import Architecture, keras_weights


def takes(backbone: Any) -> bool:
    """Say whether `hidden_states` computes what a KerasHub backbone computes."""
    architecture = architectures.of_backbone(type(backbone).__name__)
    return architecture is not None and computes(keras_weights.describe(architecture, backbone))


def computes(config: DecoderConfig) -> bool:
    """Say whether `hidden_states` knows every trait of a decoder that a table of names describes."""
    heads, part, kind = config.attention, config.feedforward, config.positions
    plain_heads = Attention(heads.num_query_heads, heads.num_key_value_heads, heads.head_dim)
    biases = ("query_bias", "key_bias", "value_bias", "output_bias")
    plain = DecoderConfig(
        architecture=config.architecture,
        vocabulary_size=config.vocabulary_size,
        num_layers=config.num_layers,
        hidden_dim=config.hidden_dim,
        max_sequence_length=config.max_sequence_length,
        attention=replace(plain_heads, **{bias: getattr(heads, bias) for bias in biases}),
        feedforward=replace(part, experts=None),
        norm=config.norm,
        positions=kind,
        tied_head=config.tied_head,
    )
    is_biased = {heads.query_bias, heads.key_bias, heads.value_bias}
    is_rotated = isinstance(kind, RotaryPositions) and not isinstance(kind.scaling, DynamicScaling | LongRopeScaling)
    return (
        config == plain
        and len(is_biased) == 1
        and config.norm.bias == (config.norm.kind == "layer_norm")
        and (is_rotated or (isinstance(kind, LearnedPositions) and heads.num_query_heads == heads.num_key_value_heads))
    )


def hidden_states(backbone: Any, inputs: Mapping[str, Any], *, training: bool | None, remat: bool = False) -> Any:
    """Return the last hidden states of a backbone under a block-diagonal causal mask.

    Args:
        backbone: of a class that this module `takes`.
        inputs: `token_ids`, `positions` and `segment_ids`, each int32 `(batch, sequence_length)`; or what
            `without_padding` makes of them.
        training: whether dropout is on.
        remat: keep only what enters each layer for the backward pass, and compute the layer again there.

    Returns:
        Float, `token_ids`' shape and `hidden_dim`, in the backbone's compute type.
    """
    architecture = _architecture_of(backbone)
    hidden = _embedded(backbone, inputs, training=training)
    layers = backbone.transformer_layers
    if not _knows(backbone):
        return backbone.layer_norm(_through_keras(layers, hidden, inputs, training=training, remat=remat))
    width = hidden.shape[-1]
    flat = ops.reshape(hidden, (-1, width))
    config = keras_weights.describe(architecture, backbone)
    rotation = _rotation(config, inputs["positions"])
    for index, layer in enumerate(layers):

        def through(flat: Any, seeds: tuple[Any, ...], index: int = index, layer: Any = layer) -> Any:
            hooks = _Hooks(config, inputs, rotation, float(layer.dropout), seeds)
            return block(config, index, keras_weights.layer_parts(architecture, layer), flat, hooks)

        # Drawn outside of what may be computed again, where a generator's state could not be kept.
        seeds = _seeds(architecture, layer) if training else (None, None, None)
        flat = _recomputed(through, flat, seeds) if remat and training else through(flat, seeds)
    flat = _normalize(config, backbone.layer_norm, flat)
    return ops.reshape(flat, ops.shape(hidden))


def without_padding(backbone: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the inputs of `hidden_states` and of a loss as one row that has hardly any padding, where that pays.

    Between two attentions a position knows nothing of the others, so that no padding need be computed there. On
    TensorFlow, whose shapes may change from step to step, the positions that hold a token are put first, and of the
    others as many are kept as make a multiple of 64; on other backends the inputs come back as they are.

    Args:
        backbone: as `hidden_states` takes it.
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


def _architecture_of(backbone: Any) -> Architecture:
    found = architectures.of_backbone(type(backbone).__name__)
    assert found is not None
    return found


def _embedded(backbone: Any, inputs: Mapping[str, Any], *, training: bool | None) -> Any:
    """What enters the first layer."""
    if hasattr(backbone, "embeddings"):  # OPT keeps both embeddings in one layer, and has no dropout on their sum
        return backbone.embeddings(inputs["token_ids"], positions=inputs["positions"])
    tokens = backbone.token_embedding(inputs["token_ids"])
    if not hasattr(backbone, "position_embedding"):
        return tokens
    places = backbone.position_embedding(tokens, positions=inputs["positions"])
    return backbone.embeddings_dropout(backbone.embeddings_add((tokens, places)), training=training)


def _rotation(config: DecoderConfig, places: Any) -> Any:
    """Cosines and sines of the angles by which queries and keys are rotated, `(rows, 1, pairs)`; None without any."""
    if not isinstance(config.positions, RotaryPositions):
        return None
    turns = positions.frequencies(config.positions, config.attention.head_dim, 0)
    found = positions.angles(ops, ops.cast(ops.reshape(places, (-1,)), "float32"), turns)
    return [ops.expand_dims(one, 1) for one in found]


def _knows(backbone: Any) -> bool:
    architecture = _architecture_of(backbone)
    return (
        keras.config.backend() in ("jax", "tensorflow")
        and all(_is_known(architecture, layer) for layer in backbone.transformer_layers)
        and keras_weights.has_its_layers(architecture, backbone)
    )


def _is_known(architecture: Architecture, layer: Any) -> bool:
    """Whether a layer is KerasHub's as the architecture has it, not one derived from it, arranged anew or quantized."""
    return (
        type(layer).__name__ == architecture.layer
        and type(layer).__module__.startswith("keras_hub.")
        and getattr(layer, "normalize_first", True)
        and getattr(layer, "_cross_attention_layer", None) is None
        and getattr(layer._feedforward_output_dense, "quantization_mode", None) is None
        and (not layer.dropout or bool(architecture.dropouts))
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


class _Hooks:
    """What one block computes with, on `(batch * sequence_length, hidden_dim)`, or on the positions of a layout.

    Args:
        config: the decoder's.
        inputs: as `hidden_states` takes them: `segment_ids`, int32 `(batch, sequence_length)`, and perhaps a `layout`,
            which positions the rows are.
        rotation: cosines and sines of the rotation of queries and keys, or None.
        rate: of dropout.
        seeds: of the dropouts of probabilities, attention and feed-forward part; None where there is none.
    """

    def __init__(
        self, config: DecoderConfig, inputs: Mapping[str, Any], rotation: Any, rate: float, seeds: tuple[Any, ...]
    ) -> None:
        self._config, self._inputs, self._rotation, self._rate = config, inputs, rotation, rate
        self._seeds = dict(zip(("probabilities", "attention", "feedforward"), seeds, strict=True))

    def norm(self, hidden: Any, weights: Any) -> Any:
        return _normalize(self._config, weights, hidden)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """One role's product, queries, keys and values side by side, or the gate's product and the other one."""
        if roles == QUERY_KEY_VALUE:
            return _queries_keys_values([layer[role] for role in roles], hidden)
        if roles == GATE_UP:
            return tuple(_dense(layer[role], hidden) for role in roles)
        return _dense(layer[roles[0]], hidden)

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        seed, layout = self._seeds["probabilities"], self._inputs.get("layout")
        more = () if layout is None else (layout,)
        heads = self._config.attention.num_query_heads
        rate = self._rate if seed is not None else 0.0
        if self._rotation is not None:
            projected = self._rotated(projected)
        return _kernels().attention(projected, self._inputs["segment_ids"], heads, rate, seed, *more)

    def _rotated(self, projected: Any) -> Any:
        """Queries and keys rotated, and each key and value repeated for the queries that share it."""
        attention, rotary = self._config.attention, cast(RotaryPositions, self._config.positions)
        queries, others = attention.num_query_heads, attention.num_key_value_heads
        by_head = ops.reshape(projected, (-1, queries + 2 * others, attention.head_dim))
        wide = ops.cast(by_head[:, : queries + others], "float32")
        cosines, sines = self._rotation
        rotated = ops.cast(positions.rotate(ops, wide, cosines, sines, rotary), projected.dtype)
        shared = [rotated[:, queries:], by_head[:, queries + others :]]
        repeated = [ops.repeat(each, queries // others, axis=1) for each in shared]
        return ops.reshape(ops.concatenate([rotated[:, :queries], *repeated], axis=1), (-1, 3 * attention.query_dim))

    def activate(self, projected: Any) -> Any:
        part = self._config.feedforward
        if part.gated:
            gate, up = projected
            return ops.cast(activate(ops, ops.cast(gate, "float32"), part.activation), up.dtype) * up
        if part.activation == "gelu_approximate":
            return _kernels().gelu(projected)
        return activate(ops, projected, part.activation)

    def drop(self, hidden: Any, site: str) -> Any:
        return _drop(hidden, self._rate, self._seeds[site])


def _queries_keys_values(parts: list[Any], x: Any) -> Any:
    """Queries, keys and values side by side, `(rows, 3 * hidden_dim)`, from one product."""
    kernel = ops.concatenate([_matrix(part, x) for part in parts], axis=1)
    has_bias = parts[0].bias is not None
    bias = ops.concatenate([_vector(part.bias, x.dtype) for part in parts]) if has_bias else None
    together = _kernels().affine(x, kernel, bias)
    if not any(part.lora_enabled for part in parts):
        return together
    return together + ops.concatenate([_adapted(part, x) for part in parts], axis=1)


def _dense(layer: Any, x: Any) -> Any:
    """A dense or einsum-dense layer without its activation, on `(rows, width)`."""
    bias = None if layer.bias is None else _vector(layer.bias, x.dtype)
    found = _kernels().affine(x, _matrix(layer, x), bias)
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


def _normalize(config: DecoderConfig, layer: Any, x: Any) -> Any:
    if config.norm.kind != "layer_norm":
        scale = ops.convert_to_tensor(layer.scale)
        return ops.cast(normalize(ops, ops.cast(x, "float32"), config.norm, {"scale": scale}), x.dtype)
    return _kernels().layer_norm(
        x, ops.convert_to_tensor(layer.gamma), ops.convert_to_tensor(layer.beta), layer.epsilon
    )


def _drop(x: Any, rate: float, seed: Any) -> Any:
    return x if seed is None else _kernels().dropout(x, rate, seed)


def _seeds(architecture: Architecture, layer: Any) -> tuple[Any, ...]:
    """Seeds of a layer's three dropouts, from their own generators; None where there is none."""
    if not layer.dropout:
        return None, None, None
    return tuple(attrgetter(path)(layer).seed_generator.next() for path in architecture.dropouts)


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
