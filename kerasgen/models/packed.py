"""Token ids become hidden states, with documents that share a row kept apart, for every decoder that is described.

It runs `kerasgen.decoder.block` on Keras variables. The arithmetic is that of KerasHub's layers, dropout and adapters
included; the order of work is another: queries, keys and values come from one product, what lies between two products
is one compiled loop, and the backward pass computes again what is cheap. Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from math import prod
from typing import Any, cast

import keras
from keras import ops

from kerasgen.decoder.arithmetic import activate, gated, normalize, routing_weights
from kerasgen.decoder.block import GATE_UP, QUERY_KEY_VALUE, ROUTER, UP, Roles, block, shared_expert
from kerasgen.decoder.config import DecoderConfig, LearnedPositions, Norm
from kerasgen.models import low_rank, packed_attention, projections, quantized_base
from kerasgen.models.keras_decoder import KerasDecoder, bias_of, has_heads_first, scale_of
from kerasgen.models.shared_blocks import SharedBlocks, in_a_graph


def takes(decoder: KerasDecoder) -> bool:
    """Say whether `hidden_states` computes what a decoder computes."""
    if decoder.backbone is None or is_fast(decoder):
        return True
    return all("decoder_attention_mask" in signature(layer.call).parameters for layer in _hub_layers(decoder))


def is_fast(decoder: KerasDecoder) -> bool:
    """Say whether a decoder is computed by the block rather than by KerasHub's own layers."""
    return (_has_kernels() or decoder.backbone is None) and decoder.is_plain()


def _has_kernels() -> bool:
    return keras.config.backend() in ("jax", "tensorflow")


def hidden_states(
    decoder: KerasDecoder, inputs: Mapping[str, Any], *, training: bool | None, remat: bool = False
) -> Any:
    """Return the last hidden states of a decoder under a block-diagonal causal mask.

    Args:
        decoder: one that this module `takes`.
        inputs: `token_ids`, `positions` and `segment_ids`, each int32 `(batch, sequence_length)`; or what
            `without_padding` makes of them.
        training: whether dropout is on.
        remat: keep only what enters each layer for the backward pass, and compute the layer again there.

    Returns:
        Float, `token_ids`' shape and `hidden_dim`, in the compute type of the layers.
    """
    return with_router_loss(decoder, inputs, training=training, remat=remat)[0]


def with_router_loss(
    decoder: KerasDecoder, inputs: Mapping[str, Any], *, training: bool | None, remat: bool = False
) -> tuple[Any, Any]:
    """Return what `hidden_states` does, and what unbalanced routers cost.

    Returns:
        The hidden states; and float32 what is added to a batch's loss, or None where the description asks for nothing.
    """
    config = decoder.config
    hidden = _embedded(decoder, inputs, training=training)
    if not is_fast(decoder):
        hidden = _through_keras(decoder, hidden, inputs, training=training, remat=remat)
        return decoder.backbone.layer_norm(hidden), None
    routed: list[tuple[Any, Any]] = []
    flat = ops.reshape(hidden, (-1, hidden.shape[-1]))
    rotations = packed_attention.rotations(config, inputs)
    shared = SharedBlocks() if in_a_graph() and config.feedforward.experts is None else None
    for index, layer in enumerate(decoder.parts["layers"]):
        positions = config.positions_of(index)

        def through(
            flat: Any, seeds: tuple[Any, ...], layer: Any = layer, index: int = index, positions: Any = positions
        ) -> Any:
            hooks = _Hooks(config, inputs, rotations.get(positions), decoder.rate(index), seeds)
            flat = block(config, index, layer, flat, hooks)
            return flat if hooks.routed is None else (flat, *hooks.routed)

        # Drawn outside of what may be computed again, where a generator's state could not be kept.
        seeds = decoder.seeds(index) if training else (None, None, None)
        if remat and training:
            flat = _recomputed(through, flat, seeds)
        elif shared is not None:
            flat = shared((positions, config.window(index), decoder.rate(index)), through, flat, seeds, layer)
        else:
            flat = through(flat, seeds)
        if config.has_experts(index):
            flat, *counted = flat
            routed.append(tuple(counted))
    if config.final_norm:
        flat = _normalize(config.norm, decoder.parts["final_norm"], flat)
    return ops.reshape(flat, ops.shape(hidden)), _router_loss(config, inputs, routed)


def _router_loss(config: DecoderConfig, inputs: Mapping[str, Any], routed: list[tuple[Any, Any]]) -> Any:
    """What transformers adds to a loss: experts times the sum over them of share taken times mean probability.

    Both are means over the tokens of all layers together; padding is none. Source: Fedus et al. 2021 (arXiv
    2101.03961), equations 4 to 6.
    """
    experts = config.feedforward.experts
    if experts is None or not experts.router_loss or not routed:
        return None
    tokens = ops.maximum(ops.sum(_is_token(inputs)), 1.0) * len(routed)
    taken, probabilities = (sum(each) / tokens for each in zip(*routed, strict=True))
    return experts.router_loss * experts.num_experts * ops.sum(taken * probabilities)


def _is_token(inputs: Mapping[str, Any]) -> Any:
    """Float32 `(rows, 1)`, 1 where a position holds a token and 0 where it is padding."""
    given = inputs["is_token"] if "is_token" in inputs else inputs["segment_ids"] > 0
    return ops.cast(ops.reshape(given, (-1, 1)), "float32")


def output(decoder: KerasDecoder, hidden: Any) -> tuple[Any, Any, float | None, bool]:
    """Return what makes logits of hidden states: `soft_cap(hidden @ table.T)`.

    Args:
        decoder: as `hidden_states` takes it.
        hidden: what it returned.

    Returns:
        The hidden states, perhaps scaled and with a column of ones; the table, float32 and as wide, with the biases as
        a column; the soft cap or None; and whether any of the table is trained.
    """
    config, tokens, head = decoder.config, decoder.parts["embedding"]["tokens"], cast(Any, decoder.parts.get("head"))
    if config.tied_head:
        table, is_trained = ops.convert_to_tensor(tokens.embeddings), bool(tokens.trainable_variables)
    else:
        kernel = getattr(head, "reverse_embeddings", None)
        table = ops.transpose(head.kernel if kernel is None else kernel)
        is_trained = bool(head.trainable_variables)
    if config.logit_scale != 1.0:
        hidden = hidden * ops.cast(config.logit_scale, hidden.dtype)
    if config.head_bias:
        # Eight columns, of which one holds the biases: products of an odd width are slower.
        bias = ops.cast(ops.expand_dims(ops.convert_to_tensor(head.bias), 1), table.dtype) * config.logit_scale
        table = ops.concatenate([table, ops.pad(bias, ((0, 0), (0, 7)))], axis=1)
        ones = ops.ones((*ops.shape(hidden)[:-1], 8), hidden.dtype)
        hidden = ops.concatenate([hidden, ones], axis=-1)
    return hidden, table, config.logit_soft_cap, is_trained


def without_padding(decoder: KerasDecoder, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the inputs of `hidden_states` and of a loss as one row that has hardly any padding, where that pays.

    Between two attentions a position knows nothing of the others, so that no padding need be computed there. On
    TensorFlow, whose shapes may change from step to step, the positions that hold a token are put first, and of the
    others as many are kept as make a multiple of 64; on other backends the inputs come back as they are, and so they do
    where attention has no kernel that knows which positions are left.

    Args:
        decoder: as `hidden_states` takes it.
        inputs: as `hidden_states` takes them; what else is of their shape, such as targets and weights, goes along.

    Returns:
        The same names, `(1, positions)` each, but for `segment_ids`, which stay, and a `layout` that leads from one
        to the other. A padded position must not weigh in the loss: its gradient is taken to be zero.
    """
    config, length = decoder.config, inputs["segment_ids"].shape[1]
    layers = range(config.num_layers)
    if keras.config.backend() != "tensorflow" or not is_fast(decoder):
        return inputs
    if not all(
        packed_attention.fuses(config, index, length)
        and not packed_attention.depends_on_length(config.positions_of(index))
        for index in layers
    ):
        return inputs
    from kerasgen.models import kernels_tensorflow

    layout = kernels_tensorflow.layout(inputs["segment_ids"])
    if config.feedforward.experts is not None:
        inputs = {**inputs, "is_token": ops.cast(inputs["segment_ids"] > 0, "int32")}
    taken = {name: kernels_tensorflow.taken(layout, of) for name, of in inputs.items() if name != "segment_ids"}
    return {**taken, "segment_ids": inputs["segment_ids"], "layout": layout}


def _embedded(decoder: KerasDecoder, inputs: Mapping[str, Any], *, training: bool | None) -> Any:
    """What enters the first layer."""
    config, tables, backbone = decoder.config, decoder.parts["embedding"], decoder.backbone
    hidden = tables["tokens"](inputs["token_ids"])
    if config.embedding_scale != 1.0:
        hidden = hidden * ops.cast(config.embedding_scale, hidden.dtype)
    if isinstance(config.positions, LearnedPositions):
        table = tables["positions"]
        is_hubs = hasattr(table, "position_embeddings")
        places = table(hidden, positions=inputs["positions"]) if is_hubs else table(inputs["positions"])
        hidden = hidden + places
    if config.embedding_norm is not None:
        flat = ops.reshape(hidden, (-1, hidden.shape[-1]))
        hidden = ops.reshape(_normalize(config.embedding_norm, tables["norm"], flat), ops.shape(hidden))
    dropout = getattr(backbone, "embeddings_dropout", None)
    return hidden if dropout is None else dropout(hidden, training=training)


def _hub_layers(decoder: KerasDecoder) -> list[Any]:
    return list(decoder.backbone.transformer_layers)


def _through_keras(
    decoder: KerasDecoder, hidden: Any, inputs: Mapping[str, Any], *, training: bool | None, remat: bool
) -> Any:
    """The same through KerasHub's own layers, for what the other path does not know."""
    segment_ids = inputs["segment_ids"]
    same_document = ops.equal(ops.expand_dims(segment_ids, 2), ops.expand_dims(segment_ids, 1))
    for layer in _hub_layers(decoder):

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
        rotation: cosines and sines of the rotation of the layer's queries and keys, or None.
        rate: of dropout.
        seeds: of the dropouts of probabilities, attention and feed-forward part; None where there is none.
    """

    def __init__(
        self, config: DecoderConfig, inputs: Mapping[str, Any], rotation: Any, rate: float, seeds: tuple[Any, ...]
    ) -> None:
        self._config, self._inputs, self._rotation, self._rate = config, inputs, rotation, rate
        self._seeds = dict(zip(("probabilities", "attention", "feedforward"), seeds, strict=True))
        self.routed: tuple[Any, Any] | None = None

    def norm(self, hidden: Any, weights: Any) -> Any:
        return _normalize(self._config.norm, weights, hidden)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """One role's product, queries, keys and values side by side, or the gate's product and the other one."""
        heads = self._config.attention
        if roles == QUERY_KEY_VALUE and layer["query"] is layer["key"]:  # KerasHub's GPT-NeoX: one layer, head by head
            by_head = ops.reshape(_dense(layer["query"], hidden), (-1, heads.num_query_heads, 3, heads.head_dim))
            return ops.reshape(ops.swapaxes(by_head, 1, 2), (-1, 3 * heads.query_dim))
        if roles == QUERY_KEY_VALUE:
            return _queries_keys_values([layer[role] for role in roles], hidden)
        if roles == GATE_UP:
            return tuple(_dense(layer[role], hidden) for role in roles)
        return _dense(layer[roles[0]], hidden)

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        config, attention, segment_ids = self._config, self._config.attention, self._inputs["segment_ids"]
        fuses = _has_kernels() and packed_attention.fuses(config, index, segment_ids.shape[1])
        is_prepared = self._rotation is None and attention.query_key_norm is None
        if fuses and is_prepared and attention.num_query_heads == attention.num_key_value_heads:
            return self._through_kernel(projected)
        heads = packed_attention.prepared(config, index, layer, projected, self._rotation)
        if fuses:
            return self._through_kernel(self._repeated(*heads))
        flat = [ops.reshape(part, (-1, part.shape[1] * part.shape[2])) for part in heads]

        def gather(together: Any, seeds: Any) -> Any:
            sinks = layer["sinks"] if attention.sinks else None
            return packed_attention.attend(config, index, together, segment_ids, sinks)

        return _recomputed(gather, ops.concatenate(flat, axis=1), ())

    def _through_kernel(self, together: Any) -> Any:
        """What the backend's kernel gathers, from queries, keys and values side by side, of as many heads each."""
        attention, layout = self._config.attention, self._inputs.get("layout")
        if attention.scale is not None:  # the kernels have one of their own
            factor = attention.score_scale * attention.head_dim**0.5
            queries = together[:, : attention.query_dim] * ops.cast(factor, together.dtype)
            together = ops.concatenate([queries, together[:, attention.query_dim :]], axis=1)
        seed, more = self._seeds["probabilities"], () if layout is None else (layout,)
        rate = self._rate if seed is not None else 0.0
        return _kernels().attention(together, self._inputs["segment_ids"], attention.num_query_heads, rate, seed, *more)

    def _repeated(self, query: Any, key: Any, value: Any) -> Any:
        """Queries, keys and values side by side, each key and value repeated for the queries that share it."""
        attention = self._config.attention
        groups = attention.num_query_heads // attention.num_key_value_heads
        repeated = [ops.repeat(each, groups, axis=1) for each in (key, value)]
        return ops.reshape(ops.concatenate([query, *repeated], axis=1), (-1, 3 * attention.query_dim))

    def activate(self, projected: Any) -> Any:
        part = self._config.feedforward
        if part.gated:
            gate, up = projected
            return self._gated(gate, up)
        if part.activation == "gelu_approximate":
            return _kernels().gelu(projected)
        return activate(ops, projected, part.activation)

    def _gated(self, gate: Any, up: Any) -> Any:
        part = self._config.feedforward
        if part.clamped_gate is None:
            return ops.cast(activate(ops, ops.cast(gate, "float32"), part.activation), up.dtype) * up
        return ops.cast(gated(ops, ops.cast(gate, "float32"), ops.cast(up, "float32"), part), up.dtype)

    def experts(self, hidden: Any, layer: Mapping[str, Any]) -> Any:
        """The sum of what each token's likeliest experts make of it, by their weights; all of them are computed.

        It sets `routed`: for each expert how many tokens took it, and the sum of its probabilities over the tokens.
        """
        part = self._config.feedforward
        settings = part.experts
        assert settings is not None
        logits = ops.cast(self.project(hidden, layer, ROUTER), "float32")
        weights, probabilities, taken = routing_weights(ops, logits, settings)
        is_token = _is_token(self._inputs)
        self.routed = ops.sum(taken * is_token, axis=0), ops.sum(probabilities * is_token, axis=0)
        roles = GATE_UP if part.gated else UP
        products = _products_by_expert([layer[role] for role in roles], hidden)
        wide = self.activate(products if part.gated else products[0])  # (experts, tokens, columns)
        weights = ops.cast(weights, hidden.dtype)
        wide = wide * ops.expand_dims(ops.transpose(weights), 2)
        down = layer["down"]
        total = ops.einsum("etm,emh->th", wide, ops.cast(down.kernel, hidden.dtype))
        if down.bias is not None:
            total = total + ops.matmul(weights, ops.cast(down.bias, hidden.dtype))
        if not settings.shared_dim:
            return total
        share = ops.sigmoid(self.project(hidden, layer, ("shared_router",)))
        return total + share * shared_expert(self._config, layer, hidden, self)

    def drop(self, hidden: Any, site: str) -> Any:
        return _drop(hidden, self._rate, self._seeds[site])


def _queries_keys_values(parts: list[Any], x: Any) -> Any:
    """Queries, keys and values side by side, `(rows, columns)`, from one product of floats."""
    if any(quantized_base.is_on(part) or _has_magnitude(part) for part in parts):
        return ops.concatenate([_dense(part, x) for part in parts], axis=1)
    kernels = [_matrix(part, x) for part in parts]
    biases = [None if part.bias is None else _vector(part.bias, x.dtype) for part in parts]
    bias = None
    if any(each is not None for each in biases):
        every = zip(biases, kernels, strict=True)
        bias = ops.concatenate([ops.zeros(kernel.shape[1:], x.dtype) if own is None else own for own, kernel in every])
    together = _kernels().affine(x, ops.concatenate(kernels, axis=1), bias)
    if not any(part.lora_enabled for part in parts):
        return together
    return together + ops.concatenate([_adapted(part, x) for part in parts], axis=1)


def _products_by_expert(parts: list[Any], x: Any) -> tuple[Any, ...]:
    """What the kernels of each part make of `(tokens, width)`; a gate and its other factor may be in one kernel."""
    first = parts[0]
    if len(parts) == 1 or first.kernel is not parts[1].kernel:
        return tuple(_by_expert(part, x) for part in parts)
    both = _by_expert(first, x)
    return (both[..., ::2], both[..., 1::2]) if first.in_turn else tuple(ops.split(both, 2, axis=-1))


def _by_expert(part: Any, x: Any) -> Any:
    """What each expert's kernel makes of `(tokens, width)`: `(experts, tokens, columns)`."""
    products = ops.einsum("th,ehm->etm", x, ops.cast(part.kernel, x.dtype))
    return products if part.bias is None else products + ops.expand_dims(ops.cast(part.bias, x.dtype), 1)


def _dense(layer: Any, x: Any) -> Any:
    """A dense or einsum-dense layer without its activation, on `(rows, width)`."""
    bias = None if layer.bias is None else _vector(layer.bias, x.dtype)
    if _has_magnitude(layer):
        product = (_frozen(layer, x, None) + _adapted(layer, x)) * ops.cast(low_rank.magnitudes(layer), x.dtype)
        return product if bias is None else product + bias
    product = _frozen(layer, x, bias)
    return product + _adapted(layer, x) if layer.lora_enabled else product


def _has_magnitude(layer: Any) -> bool:
    return low_rank.is_on(layer) and layer.lora_magnitude is not None


def _frozen(layer: Any, x: Any, bias: Any) -> Any:
    """The product with a layer's own kernel, its adapter left out."""
    if not quantized_base.is_on(layer):
        return _kernels().affine(x, _matrix(layer, x), bias)
    product = _kernels().frozen_product(x, *quantized_base.parts(layer))
    return product if bias is None else product + bias


def _adapted(layer: Any, x: Any) -> Any:
    """What a layer's adapter adds, `(rows, columns)`; zeros where it has none."""
    columns = prod(projections.shape(layer)) // x.shape[-1]
    if not layer.lora_enabled:
        return ops.zeros((ops.shape(x)[0], columns), x.dtype)
    thin_a, thin_b = ops.cast(layer.lora_kernel_a, x.dtype), ops.cast(layer.lora_kernel_b, x.dtype)
    if low_rank.is_on(layer):
        return ops.matmul(ops.matmul(x, thin_a), thin_b) * layer.lora_scale
    if has_heads_first(layer):
        thin_a = ops.swapaxes(thin_a, 0, 1)
    # A kernel of several dimensions, (width, heads, size), is adapted along the last, (width, heads, rank) by
    # (rank, size); one of (heads, size, width) as (heads, size, rank) by (rank, width).
    rank = thin_a.shape[-1]
    rows_in = x.shape[-1]
    between = ops.matmul(x, ops.reshape(thin_a, (rows_in, -1)))
    if thin_a.shape[0] == rows_in:
        between = ops.reshape(between, (-1, prod(thin_a.shape[1:-1]), rank))
        product = ops.reshape(ops.matmul(between, thin_b), (-1, columns))
    else:
        product = ops.matmul(between, thin_b)
    return product * (layer.lora_alpha / layer.lora_rank)


def _matrix(layer: Any, x: Any) -> Any:
    """The kernel of a dense or einsum-dense layer as `(width, columns)`, adapters left out."""
    kernel = ops.cast(layer._kernel, x.dtype)
    return ops.reshape(ops.swapaxes(kernel, 0, 1) if has_heads_first(layer) else kernel, (x.shape[-1], -1))


def _vector(variable: Any, dtype: Any) -> Any:
    return ops.reshape(ops.cast(variable, dtype), (-1,))


def _normalize(norm: Norm, layer: Any, x: Any) -> Any:
    scale, bias = ops.convert_to_tensor(scale_of(layer)), bias_of(layer)
    if norm.kind != "layer_norm":
        return ops.cast(normalize(ops, ops.cast(x, "float32"), norm, {"scale": scale}), x.dtype)
    bias = ops.convert_to_tensor(bias) if norm.bias else ops.zeros_like(scale)
    return _kernels().layer_norm(x, scale, bias, norm.epsilon)


def _drop(x: Any, rate: float, seed: Any) -> Any:
    return x if seed is None else _kernels().dropout(x, rate, seed)


def _recomputed(block: Any, flat: Any, seeds: tuple[Any, ...]) -> Any:
    if keras.config.backend() == "jax":
        import jax

        return jax.checkpoint(block)(flat, seeds)
    if not _has_kernels():
        return keras.remat(lambda flat: block(flat, seeds))(flat)
    from kerasgen.models import kernels_tensorflow

    return kernels_tensorflow.recomputed(block, flat, seeds)


def _kernels() -> Any:
    if keras.config.backend() == "jax":
        from kerasgen.models import kernels_jax

        return kernels_jax
    if not _has_kernels():
        from kerasgen.models import kernels_plain

        return kernels_plain
    from kerasgen.models import kernels_tensorflow

    return kernels_tensorflow
