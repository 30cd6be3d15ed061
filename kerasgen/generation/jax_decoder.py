"""The forward passes of GPT-2 and OPT for decoding, as functions of their weights and caches. Imports JAX.

Activations stand as `(features, rows)` and kernels as `(out, in)`: on a CPU, XLA multiplies that way two to three times
as fast for two to thirty-two rows as the other way round, and as fast for one (measured; see the log).

A cache has two parts. The prompt's holds one row for each prompt. The generated one holds `slots` for each prompt, one
for each text that goes on from it, and is written at one place for all: every text is at its n-th new token, however
long its prompt.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

NEVER = -1e30


class Layer(NamedTuple):
    """The weights of one transformer layer, in float32; kernels `(out, in)`, vectors `(n, 1)`."""

    attention_gamma: Any
    attention_beta: Any
    qkv: Any
    qkv_bias: Any
    output: Any
    output_bias: Any
    feedforward_gamma: Any
    feedforward_beta: Any
    up: Any
    up_bias: Any
    down: Any
    down_bias: Any


class Weights(NamedTuple):
    """A decoder's weights.

    Args:
        tokens: `(vocabulary_size, dim)`, which is the output layer too.
        positions: `(positions, dim)`.
        layers: the layers.
        gamma: `(dim, 1)`, of the last normalization.
        beta: `(dim, 1)`.
        turned: the tokens' `(dim, vocabulary_size)`, by which the logits of one row are computed; None where they are
            computed by `tokens`.
    """

    tokens: Any
    positions: Any
    layers: tuple[Layer, ...]
    gamma: Any
    beta: Any
    turned: Any = None


class Shape(NamedTuple):
    """What is fixed when a graph is traced.

    Args:
        heads: of attention.
        epsilon: of the normalizations.
        relu: whether the activation is ReLU; GELU's approximation by tanh if not.
        vocabulary_size: ids whose logits are computed.
    """

    heads: int
    epsilon: float
    relu: bool
    vocabulary_size: int


class Cache(NamedTuple):
    """Keys and values of every layer.

    Args:
        keys: for each layer float32 `(prompts, heads, size, length)`; of generated tokens
            `(prompts, heads, size, slots, length)`.
        values: for each layer float32 `(prompts, heads, length, size)`; of generated tokens
            `(prompts, heads, slots, length, size)`.
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]


def prefill(shape: Shape, weights: Weights, token_ids: Any, lengths: Any, past: Cache, past_valid: Any) -> Any:
    """Read prompts.

    Args:
        shape: the decoder's.
        weights: the decoder's.
        token_ids: int32 `(prompts, length)`, right-padded; what stands after `past`.
        lengths: int32 `(prompts,)`, at least 1.
        past: what was read before; its length may be 0.
        past_valid: bool `(prompts, past length)`, which of its places hold a token.

    Returns:
        Logits `(prompts, vocabulary_size)` after each prompt, hidden states `(prompts, length, dim)`, and the cache of
        these tokens alone.
    """
    prompts, length = token_ids.shape
    begun = jnp.sum(past_valid, axis=1, dtype=jnp.int32)
    places = jnp.minimum(begun[:, None] + jnp.arange(length), weights.positions.shape[0] - 1)
    hidden = (weights.tokens[token_ids] + weights.positions[places]).reshape(prompts * length, -1).T
    causal = jnp.tril(jnp.ones((length, length), dtype=bool))
    mask = jnp.concatenate(
        [
            jnp.broadcast_to(past_valid[:, None, :], (prompts, length, past_valid.shape[1])),
            jnp.broadcast_to(causal, (prompts, length, length)),
        ],
        axis=2,
    )[:, None]
    keys, values = [], []
    for layer, past_keys, past_values in zip(weights.layers, past.keys, past.values, strict=True):
        query, key, value = _queries_keys_values(shape, layer, hidden, (prompts, length))
        key, value = key.transpose(2, 0, 1, 3), value.transpose(2, 0, 3, 1)  # (p, h, d, t), (p, h, t, d)
        keys.append(key)
        values.append(value)
        all_keys = jnp.concatenate([past_keys, key], axis=3)
        all_values = jnp.concatenate([past_values, value], axis=2)
        scores = jnp.einsum("hdpt,phds->phts", query, all_keys)
        gathered = jnp.einsum("phts,phsd->hdpt", jax.nn.softmax(jnp.where(mask, scores, NEVER), axis=-1), all_values)
        hidden = _rest(shape, layer, hidden, gathered.reshape(-1, prompts * length))
    states = _normalize(shape, hidden, weights.gamma, weights.beta).T.reshape(prompts, length, -1)
    last = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return _logits(shape, weights, last.T), states, Cache(tuple(keys), tuple(values))


def step(
    shape: Shape,
    weights: Weights,
    token_ids: Any,
    places: Any,
    prompt: Cache,
    valid: Any,
    generated: Cache,
    slot: Any,
    ancestors: Any,
) -> Any:
    """Read one more token of each text.

    Args:
        shape: the decoder's.
        weights: the decoder's.
        token_ids: int32 `(prompts * slots,)`.
        places: int32 `(prompts * slots,)`, where they stand in their texts.
        prompt: the prompts' cache.
        valid: bool `(prompts, length)`, which of its places hold a token.
        generated: the cache of generated tokens.
        slot: int32 scalar, where in it these are written.
        ancestors: int32 `(prompts, slots, length)`, in which slot each text's token of each place lies; None where
            there is one slot.

    Returns:
        Logits `(prompts * slots, vocabulary_size)`, hidden states `(prompts * slots, dim)` and the generated cache.
    """
    prompts, _, _, slots, length = generated.keys[0].shape
    rows = prompts * slots
    # Columns beside the texts', for a product of five takes longer than one of eight (see the log).
    extra = 0 if rows & (rows - 1) == 0 else -rows % 8
    token_ids = jnp.pad(token_ids, (0, extra))
    places = jnp.minimum(jnp.pad(places, (0, extra)), weights.positions.shape[0] - 1)
    hidden = (weights.tokens[token_ids] + weights.positions[places]).T
    filled = jnp.arange(length) <= slot
    if ancestors is None:
        mask = jnp.broadcast_to(filled, (prompts, slots, slots * length))
    else:
        own = ancestors[:, :, None, :] == jnp.arange(slots)[:, None]  # (p, text, slot, t)
        mask = (own & filled).reshape(prompts, slots, slots * length)
    in_prompt = jnp.broadcast_to(valid[:, None, :], (prompts, slots, valid.shape[1]))
    mask = jnp.concatenate([in_prompt, mask], axis=2)[:, None]
    keys, values = [], []
    for n, layer in enumerate(weights.layers):
        query, key, value = _queries_keys_values(shape, layer, hidden, (prompts, slots))
        at = (0, 0, 0, 0, slot)
        all_keys = jax.lax.dynamic_update_slice(generated.keys[n], key.transpose(2, 0, 1, 3)[..., None], at)
        at = (0, 0, 0, slot, 0)
        all_values = jax.lax.dynamic_update_slice(generated.values[n], value.transpose(2, 0, 3, 1)[:, :, :, None], at)
        keys.append(all_keys)
        values.append(all_values)
        query = query.transpose(2, 0, 3, 1)  # (p, h, b, d)
        flat_keys = all_keys.reshape(*all_keys.shape[:3], slots * length)
        flat_values = all_values.reshape(*all_values.shape[:2], slots * length, -1)
        scores = jnp.concatenate([_over_keys(query, prompt.keys[n]), _over_keys(query, flat_keys)], axis=3)
        shares = jax.nn.softmax(jnp.where(mask, scores, NEVER), axis=-1)
        edge = prompt.values[n].shape[2]
        gathered = _over_values(shares[..., :edge], prompt.values[n]) + _over_values(shares[..., edge:], flat_values)
        columns = jnp.pad(gathered.transpose(1, 3, 0, 2).reshape(-1, rows), ((0, 0), (0, extra)))
        hidden = _rest(shape, layer, hidden, columns)
    hidden = _normalize(shape, hidden, weights.gamma, weights.beta)
    return _logits(shape, weights, hidden)[:rows], hidden.T[:rows], Cache(tuple(keys), tuple(values))


def _over_keys(query: Any, keys: Any) -> Any:
    """Scores `(p, h, b, t)` of queries `(p, h, b, d)` and keys `(p, h, d, t)`."""
    if query.shape[2] == 1:  # a sum along the second last axis is a vector loop, a product of one row is not
        return jnp.sum(query[:, :, 0, :, None] * keys, axis=2)[:, :, None]
    return jnp.einsum("phbd,phdt->phbt", query, keys)


def _over_values(shares: Any, values: Any) -> Any:
    """Sums `(p, h, b, d)` of values `(p, h, t, d)` by shares `(p, h, b, t)`."""
    if shares.shape[2] == 1:
        return jnp.sum(shares[:, :, 0, :, None] * values, axis=2)[:, :, None]
    return jnp.einsum("phbt,phtd->phbd", shares, values)


def _queries_keys_values(shape: Shape, layer: Layer, hidden: Any, rows: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Each `(heads, size, *rows)`; queries are scaled. Columns beside those of the rows are left out."""
    normal = _normalize(shape, hidden, layer.attention_gamma, layer.attention_beta)
    columns = (layer.qkv @ normal + layer.qkv_bias)[:, : rows[0] * rows[1]]
    together = columns.reshape(3, shape.heads, -1, *rows)
    return together[0] * together.shape[2] ** -0.5, together[1], together[2]


def _rest(shape: Shape, layer: Layer, hidden: Any, gathered: Any) -> Any:
    """What follows attention in a layer, `(dim, rows)`."""
    hidden = hidden + layer.output @ gathered + layer.output_bias
    normal = _normalize(shape, hidden, layer.feedforward_gamma, layer.feedforward_beta)
    wide = layer.up @ normal + layer.up_bias
    wide = jax.nn.relu(wide) if shape.relu else jax.nn.gelu(wide, approximate=True)
    return hidden + layer.down @ wide + layer.down_bias


def _normalize(shape: Shape, x: Any, gamma: Any, beta: Any) -> Any:
    mean = jnp.mean(x, axis=0, keepdims=True)
    centred = x - mean
    variance = jnp.mean(centred * centred, axis=0, keepdims=True)
    return centred * jax.lax.rsqrt(variance + shape.epsilon) * gamma + beta


def _logits(shape: Shape, weights: Weights, hidden: Any) -> Any:
    """Float32 `(rows, vocabulary_size)` of hidden states `(dim, rows)`."""
    if weights.turned is not None and hidden.shape[1] == 1:
        return (hidden[:, 0] @ weights.turned)[None, : shape.vocabulary_size]
    # The barrier keeps XLA from turning the product round with its result, which would take twice as long.
    columns = jax.lax.optimization_barrier(weights.tokens @ hidden)
    return columns.T[:, : shape.vocabulary_size]
