"""A decoder computed by JAX: it reads prompts, then one token of each text a step. Imports JAX.

Hidden states stand as `(features, rows)` and kernels as `(out, in)`: on a CPU, XLA multiplies that way two to three
times as fast for two to thirty-two rows as the other way round, and as fast for one (measured; see the log).

A cache has two parts. The prompt's holds one row for each prompt. The generated one holds `slots` for each prompt, one
for each text that goes on from it, and is written at one place for all: every text is at its n-th new token, however
long its prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from kerasgen.decoder import jax_experts, positions
from kerasgen.decoder.arithmetic import activate, attention_weights, gated, normalize, routing_weights, soft_cap
from kerasgen.decoder.block import ROUTER, Roles, block, shared_expert
from kerasgen.decoder.config import (
    AlibiPositions,
    DecoderConfig,
    LearnedPositions,
    Positions,
    RotaryPositions,
)
from kerasgen.decoder.weights import Weights

NEVER = -1e30
# Keys whose scores are held at once, for a tile of up to 16 columns and of more (see the log).
_BLOCKS = (64, 128)

# So many rows have their logits computed row by row.
_MANY_ROWS = 16


class _Namespace:
    """`jax.numpy` with the names that `kerasgen.decoder.arithmetic` takes beside NumPy's."""

    rsqrt = staticmethod(jax.lax.rsqrt)
    relu = staticmethod(jax.nn.relu)
    silu = staticmethod(jax.nn.silu)
    gelu = staticmethod(jax.nn.gelu)
    top_k = staticmethod(jax.lax.top_k)

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)


XP = _Namespace()


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


class Chunk(NamedTuple):
    """Tokens of some prompts, in columns. A tile of columns belongs to one prompt, whose tokens come first in it.

    Args:
        token_ids: int32 `(columns,)`.
        places: int32 `(columns,)`, where they stand in their texts; one after another in a tile, its padding too.
        text_lengths: int32 `(columns,)`, how long their whole texts are.
        bases: int32 `(tiles,)`, where in the cache the place of the text's first token is.
        counts: int32 `(tiles,)`, how many columns of the tile are tokens; 0 where none is.
    """

    token_ids: Any
    places: Any
    text_lengths: Any
    bases: Any
    counts: Any


@dataclass(frozen=True)
class JaxDecoder:
    """What is fixed when a graph is traced; weights and caches are arguments. Weights are those of `prepare`.

    Args:
        config: the decoder's.
        vocabulary_size: ids whose logits are computed, the first ones of the table's.
    """

    config: DecoderConfig
    vocabulary_size: int

    def read(self, weights: Weights, chunk: Chunk, cache: Cache) -> tuple[Any, Cache]:
        """Read one chunk of prompts.

        Args:
            weights: the decoder's.
            chunk: the tokens.
            cache: what was read of their texts before, as that of one prompt, in which each text has places of its
                own, one after another.

        Returns:
            Hidden states `(columns, dim)`, and the cache with these tokens in it.
        """
        hooks = _ReadHooks(self.config, chunk, cache)
        hidden = self._embed(weights, chunk.token_ids, chunk.places)
        hidden = self._normed(weights, self._through(weights, hidden, hooks), hooks)
        return hidden.T, Cache(tuple(hooks.keys), tuple(hooks.values))

    def logits(self, weights: Weights, states: Any) -> Any:
        """Logits `(rows, vocabulary_size)` of hidden states `(rows, dim)` that `read` or `step` returned."""
        return self._head(weights, states.T)

    def step(
        self,
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
            weights: the decoder's.
            token_ids: int32 `(prompts * slots,)`; or, where there is one slot, several tokens of each text that follow
                one another, `(prompts * tokens,)`.
            places: int32 like them, where they stand in their texts.
            prompt: the prompts' cache.
            valid: bool `(prompts, length)`, which of its places hold a token.
            generated: the cache of generated tokens.
            slot: int32 scalar, where in it these are written, the first of several.
            ancestors: int32 `(prompts, slots, length)`, in which slot each text's token of each place lies; None where
                there is one slot.

        Returns:
            Logits `(tokens, vocabulary_size)`, hidden states `(tokens, dim)` and the generated cache.
        """
        rows = len(token_ids)
        hooks = _StepHooks(self.config, places, prompt, valid, generated, slot, ancestors)
        beside = (0, _columns_beside(rows))
        hidden = self._embed(weights, jnp.pad(token_ids, beside), jnp.pad(places, beside))
        hidden = self._normed(weights, self._through(weights, hidden, hooks), hooks)
        return self._head(weights, hidden)[:rows], hidden.T[:rows], Cache(tuple(hooks.keys), tuple(hooks.values))

    def _embed(self, weights: Weights, token_ids: Any, places: Any) -> Any:
        """Hidden states `(dim, rows)` of int32 ids `(rows,)`."""
        config, tables = self.config, weights["embedding"]
        rows = tables["tokens"][token_ids].astype(jnp.float32)
        if config.embedding_scale != 1.0:
            rows = rows * config.embedding_scale
        if isinstance(config.positions, LearnedPositions):
            rows = rows + tables["positions"][jnp.minimum(places, tables["positions"].shape[0] - 1)]
        hidden = rows.T
        if config.embedding_norm is not None:
            hidden = normalize(XP, hidden, config.embedding_norm, tables["norm"], axis=0)
        return hidden

    def _through(self, weights: Weights, hidden: Any, hooks: _Hooks) -> Any:
        for index, layer in enumerate(weights["layers"]):
            hidden = block(self.config, index, layer, hidden, hooks)
        return hidden

    def _normed(self, weights: Weights, hidden: Any, hooks: _Hooks) -> Any:
        return hooks.norm(hidden, weights["final_norm"]) if self.config.final_norm else hidden

    def _head(self, weights: Weights, hidden: Any) -> Any:
        """Float32 `(rows, vocabulary_size)` of hidden states `(dim, rows)`."""
        config, head, size = self.config, weights["head"], self.vocabulary_size
        if "row_kernel" in head and hidden.shape[1] == 1:
            logits = (hidden[:, 0] @ head["row_kernel"])[None, :size]
        elif hidden.shape[1] >= _MANY_ROWS:
            # What chooses reads logits row by row: columns of a power of two, which fall into the same places of a
            # processor's cache, made that take longer than the product (see the log).
            kernel = output_kernel(config, weights).astype(hidden.dtype)
            by_row = jax.lax.optimization_barrier(hidden.T)
            logits = jax.lax.dot_general(by_row, kernel, (((1,), (1,)), ((), ())))[:, :size]
        else:
            # The barrier keeps XLA from turning the product round with its result, which would take twice as long.
            logits = jax.lax.optimization_barrier(_product(output_kernel(config, weights), hidden)).T[:, :size]
        if config.head_bias:
            logits = logits + head["bias"][:size, 0]
        if config.logit_scale != 1.0:
            logits = logits * config.logit_scale
        return soft_cap(XP, logits, config.logit_soft_cap)


def output_kernel(config: DecoderConfig, weights: Weights) -> Any:
    """Return the kernel of the output layer, `(vocabulary_size, dim)`."""
    return weights["embedding"]["tokens"] if config.tied_head else weights["head"]["kernel"]


class _Hooks(ABC):
    """What a block computes with, on `(features, rows)`; see `kerasgen.decoder.block.Hooks`.

    Args:
        config: the decoder's.
        places: int32 `(prompts, texts)`, where the tokens stand in their texts.
        text_lengths: int32, in a shape that broadcasts to it, how long the texts are with these tokens.
    """

    def __init__(self, config: DecoderConfig, places: Any, text_lengths: Any) -> None:
        self._config, self.positions, self._text_lengths = config, places, text_lengths
        self._angles: dict[Positions, tuple[Any, Any]] = {}
        self.keys: list[Any] = []
        self.values: list[Any] = []

    def norm(self, hidden: Any, weights: Any) -> Any:
        return normalize(XP, hidden, self._config.norm, weights, axis=0)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """The projections of all these roles, one below the other."""
        return _affine(hidden, layer["_".join(roles)])

    def activate(self, projected: Any) -> Any:
        part = self._config.feedforward
        if not part.gated:
            return activate(XP, projected, part.activation)
        gate, up = jnp.split(projected, 2)
        return gated(XP, gate, up, part)

    def drop(self, hidden: Any, site: str) -> Any:
        return hidden

    def experts(self, hidden: Any, layer: Mapping[str, Any]) -> Any:
        """The sum of what each token's likeliest experts make of it, by their weights."""
        part = self._config.feedforward
        settings = part.experts
        assert settings is not None
        weights, _, _ = routing_weights(XP, self.project(hidden, layer, ROUTER).T, settings)  # (rows, experts)
        total = jax_experts.mixed(part, hidden, layer, weights, self.activate)
        if not settings.shared_dim:
            return total
        share = jax.nn.sigmoid(self.project(hidden, layer, ("shared_router",)))
        return total + share * shared_expert(self._config, layer, hidden, self)

    @abstractmethod
    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any: ...

    def _by_heads(self, index: int, layer: Mapping[str, Any], projected: Any) -> list[Any]:
        """Queries, keys and values, `(heads, size, prompts, texts)`, normed and rotated; queries are scaled.

        Columns beside those of the texts are left out.
        """
        attention, kind = self._config.attention, self._config.positions_of(index)
        prompts, texts = self.positions.shape
        columns = projected[:, : prompts * texts]
        first, second = attention.query_dim, attention.query_dim + attention.key_value_dim
        by_role = []
        for role, part in zip(("query", "key", "value"), jnp.split(columns, (first, second)), strict=True):
            norm = attention.query_key_norm if role != "value" else None
            is_whole = attention.query_key_norm_axis == "all_heads"
            if norm is not None and is_whole:
                part = normalize(XP, part, norm, layer[f"{role}_norm"], axis=0)
            heads = part.reshape(-1, attention.head_dim, prompts, texts)
            if norm is not None and not is_whole:
                of_size = {name: array[..., None] for name, array in layer[f"{role}_norm"].items()}
                heads = normalize(XP, heads, norm, of_size, axis=1)
            if isinstance(kind, RotaryPositions) and role != "value":
                heads = positions.rotate(XP, heads, *self._angles_of(kind), kind, axis=1)
            by_role.append(heads * attention.score_scale if role == "query" else heads)
        return by_role

    def _angles_of(self, kind: RotaryPositions) -> tuple[Any, Any]:
        """Cosines and sines, `(pairs, prompts, texts)`, which all layers of these positions share."""
        if kind not in self._angles:
            size, places = self._config.attention.head_dim, self.positions.astype(jnp.float32)
            self._angles[kind] = positions.text_angles(XP, kind, size, places, self._text_lengths, axis=0)
        return self._angles[kind]


class _ReadHooks(_Hooks):
    """Those of a chunk, whose tokens see what their texts' cache holds of them and of what stands before.

    Attention goes tile by tile, and in a tile by blocks of keys, as many as the tile sees: no scores of whole texts
    are ever held (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax").
    """

    def __init__(self, config: DecoderConfig, chunk: Chunk, cache: Cache) -> None:
        super().__init__(config, chunk.places[None], chunk.text_lengths[None])
        self._chunk, self._cache = chunk, cache
        self._tiles = chunk.bases.shape[0]
        self._tile = chunk.places.shape[0] // self._tiles
        self._room = cache.keys[0].shape[3]
        self._block = min(_BLOCKS[self._tile > 16], self._room)

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        query, key, value = (part[:, :, 0] for part in self._by_heads(index, layer, projected))  # (h, d, columns)
        keys, values = self._written(self._cache.keys[index][0], self._cache.values[index][0], key, value)
        self.keys.append(keys[None])
        self.values.append(values[None])

        def gathered(tile: Any) -> Any:
            own = jax.lax.dynamic_slice_in_dim(query, tile * self._tile, self._tile, axis=2)
            return self._gathered(index, layer, tile, own, keys, values)

        if self._tiles == 1:
            return gathered(jnp.int32(0))
        tiles = jnp.arange(self._tiles, dtype=jnp.int32)
        # One after the other a tile's products keep a processor's cores busy; an accelerator takes all tiles together.
        found = jax.lax.map(gathered, tiles) if jax.default_backend() == "cpu" else jax.vmap(gathered)(tiles)
        return jnp.moveaxis(found, 0, 1).reshape(found.shape[1], -1)

    def _written(self, keys: Any, values: Any, key: Any, value: Any) -> tuple[Any, Any]:
        """The cache with keys and values `(heads, size, columns)` of this chunk in it."""
        chunk, columns = self._chunk, value.transpose(0, 2, 1)

        def write(tile: Any, cache: tuple[Any, Any]) -> tuple[Any, Any]:
            keys, values = cache
            first = tile * self._tile
            begun = chunk.bases[tile] + chunk.places[first]
            start = jnp.minimum(begun, self._room - self._tile)
            # Columns that belong to no text leave the cache as it is.
            place = start + jnp.arange(self._tile) - begun
            mine = (place >= 0) & (place < chunk.counts[tile])
            taken = first + jnp.clip(place, 0, self._tile - 1)
            old = jax.lax.dynamic_slice_in_dim(keys, start, self._tile, axis=2)
            keys = jax.lax.dynamic_update_slice_in_dim(keys, jnp.where(mine, key[:, :, taken], old), start, axis=2)
            old = jax.lax.dynamic_slice_in_dim(values, start, self._tile, axis=1)
            new = jnp.where(mine[:, None], columns[:, taken], old)
            return keys, jax.lax.dynamic_update_slice_in_dim(values, new, start, axis=1)

        if self._tiles == 1:
            return write(jnp.int32(0), (keys, values))
        found: tuple[Any, Any] = jax.lax.fori_loop(0, self._tiles, write, (keys, values))
        return found

    def _gathered(self, index: int, layer: Mapping[str, Any], tile: Any, query: Any, keys: Any, values: Any) -> Any:
        """What a tile's queries `(heads, size, columns)` gather, `(heads * size, columns)`."""
        attention, kind, window = self._config.attention, self._config.positions_of(index), self._config.window(index)
        chunk, block, size = self._chunk, self._block, query.shape[1]
        kv_heads, columns = keys.shape[0], query.shape[2]
        base, places = chunk.bases[tile], jax.lax.dynamic_slice_in_dim(chunk.places, tile * columns, columns)
        grouped = query.reshape(kv_heads, -1, size, columns)
        shape = (kv_heads, grouped.shape[1], columns)  # of a row of scores
        query = grouped.transpose(0, 2, 1, 3).reshape(kv_heads, size, -1)

        def further(n: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            highest, total, gathered = state
            start = jnp.minimum(base + n * block, self._room - block)
            some_keys = jax.lax.dynamic_slice_in_dim(keys, start, block, axis=2)
            some_values = jax.lax.dynamic_slice_in_dim(values, start, block, axis=1)
            scores = jnp.einsum("kdt,kdq->ktq", some_keys, query).reshape(kv_heads, block, *shape[1:])
            scores = soft_cap(XP, scores, attention.soft_cap)
            key_places = start - base + jnp.arange(block)
            distances = places - key_places[:, None]  # (keys, columns)
            if isinstance(kind, AlibiPositions):
                slopes = positions.alibi_slopes(attention.num_query_heads) * kind.scale
                scores = scores - slopes.reshape(kv_heads, 1, -1, 1) * distances[:, None].astype(jnp.float32)
            mask = (distances >= 0) & (key_places >= n * block)[:, None]
            if window is not None:
                mask = mask & (distances < window)
            scores = jnp.where(mask[:, None], scores, NEVER)
            higher = jnp.maximum(highest, jnp.max(scores, axis=1))
            exponentials = jnp.exp(scores - higher[:, None])
            fewer = jnp.exp(highest - higher)
            total = total * fewer + jnp.sum(exponentials, axis=1)
            flat = exponentials.reshape(kv_heads, block, -1)
            added = jnp.einsum("ktd,ktq->kdq", some_values, flat)
            return higher, total, gathered * fewer.reshape(kv_heads, 1, -1) + added

        if attention.sinks:
            begun = jnp.broadcast_to(layer["sinks"].reshape(kv_heads, -1, 1), shape), jnp.ones(shape)
        else:
            begun = jnp.full(shape, NEVER), jnp.zeros(shape)
        state = (*begun, jnp.zeros((kv_heads, size, shape[1] * columns)))
        first = jnp.int32(0) if window is None else jnp.maximum(places[0] - window + 1, 0) // block
        end = jnp.where(chunk.counts[tile] > 0, (places[0] + chunk.counts[tile] - 1) // block + 1, 0)
        if block == self._room:
            _, total, gathered = further(0, state)
        else:
            _, total, gathered = jax.lax.fori_loop(first, end, further, state)
        gathered = gathered / jnp.maximum(total, 1e-30).reshape(kv_heads, 1, -1)
        return gathered.reshape(kv_heads, size, -1, columns).transpose(0, 2, 1, 3).reshape(-1, columns)


class _StepHooks(_Hooks):
    """Those of texts, of each of which one token is read."""

    def __init__(
        self,
        config: DecoderConfig,
        places: Any,
        prompt: Cache,
        valid: Any,
        generated: Cache,
        slot: Any,
        ancestors: Any,
    ) -> None:
        prompts, _, _, slots, length = generated.keys[0].shape
        texts = places.shape[0] // prompts
        if ancestors is None:
            filled = jnp.arange(length) <= slot + jnp.arange(texts)[:, None]
            mask = jnp.broadcast_to(filled, (prompts, texts, length))
        else:
            filled = jnp.arange(length) <= slot
            own = ancestors[:, :, None, :] == jnp.arange(slots)[:, None]  # (p, text, slot, t)
            mask = (own & filled).reshape(prompts, slots, slots * length)
        in_prompt = jnp.broadcast_to(valid[:, None, :], (prompts, texts, valid.shape[1]))
        mask = jnp.concatenate([in_prompt, mask], axis=2)[:, None]
        begun = jnp.sum(valid, axis=1, dtype=jnp.int32)[:, None]
        key_places = jnp.concatenate([_places_of(valid), begun + jnp.tile(jnp.arange(length), slots)], axis=1)[:, None]
        places = places.reshape(prompts, texts)
        super().__init__(config, places, places + 1)
        self._key_places = key_places
        self._masks: dict[int | None, Any] = {None: mask}
        self._prompt, self._generated, self._slot = prompt, generated, slot

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        query, key, value = self._by_heads(index, layer, projected)
        prompt_keys, prompt_values = self._prompt.keys[index], self._prompt.values[index]
        keys, values = self._generated.keys[index], self._generated.values[index]
        key = key.transpose(2, 0, 1, 3).reshape(*keys.shape[:4], -1)
        value = value.transpose(2, 0, 3, 1).reshape(*values.shape[:3], -1, values.shape[-1])
        keys = jax.lax.dynamic_update_slice(keys, key, (0, 0, 0, 0, self._slot))
        values = jax.lax.dynamic_update_slice(values, value, (0, 0, 0, self._slot, 0))
        self.keys.append(keys)
        self.values.append(values)
        query = query.transpose(2, 0, 3, 1)  # (p, h, b, d)
        flat_keys = keys.reshape(*keys.shape[:3], -1)
        flat_values = values.reshape(*values.shape[:2], -1, values.shape[-1])
        scores = jnp.concatenate([_over_keys(query, prompt_keys), _over_keys(query, flat_keys)], axis=3)
        weights = self._attention_weights(index, layer, scores)
        edge = prompt_values.shape[2]
        gathered = _over_values(weights[..., :edge], prompt_values) + _over_values(weights[..., edge:], flat_values)
        rows = self.positions.size
        # Without the barrier XLA would sum the values column by column, number by number (see the log).
        by_row = jax.lax.optimization_barrier(gathered.transpose(0, 2, 1, 3).reshape(rows, -1))
        return jnp.pad(by_row, ((0, _columns_beside(rows)), (0, 0))).T

    def _attention_weights(self, index: int, layer: Mapping[str, Any], scores: Any) -> Any:
        """Attention weights of scores, both `(prompts, heads, texts, keys)`."""
        attention, kind = self._config.attention, self._config.positions_of(index)
        scores = soft_cap(XP, scores, attention.soft_cap)
        if isinstance(kind, AlibiPositions):
            slopes = positions.alibi_slopes(attention.num_query_heads) * kind.scale
            distances = (self._key_places - self.positions[:, :, None]).astype(jnp.float32)
            scores = scores + slopes[:, None, None] * distances[:, None]
        sinks = layer["sinks"][:, :, None] if attention.sinks else None
        return attention_weights(XP, jnp.where(self._mask(index), scores, NEVER), sinks)

    def _mask(self, index: int) -> Any:
        window = self._config.window(index)
        if window not in self._masks:
            near = self.positions[:, :, None] - self._key_places < cast(int, window)
            self._masks[window] = self._masks[None] & near[:, None]
        return self._masks[window]


def _columns_beside(rows: int) -> int:
    """How many columns to add to the texts': a product of five takes longer than one of eight (see the log)."""
    return 0 if rows & (rows - 1) == 0 else -rows % 8


def _places_of(valid: Any) -> Any:
    """Positions of a cache's tokens in their texts, int32; `valid` is bool `(prompts, length)`, false at gaps."""
    return jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1


def _over_keys(query: Any, keys: Any) -> Any:
    """Scores `(p, h, b, t)` of queries `(p, h, b, d)` and keys `(p, k, d, t)`, of which each serves `h / k` heads."""
    prompts, heads, texts, size = query.shape
    grouped = query.reshape(prompts, keys.shape[1], -1, size)
    if grouped.shape[2] == 1:  # a sum along the second last axis is a vector loop, a product of one row is not
        return jnp.sum(grouped[:, :, 0, :, None] * keys, axis=2)[:, :, None]
    return jnp.einsum("pkbd,pkdt->pkbt", grouped, keys).reshape(prompts, heads, texts, -1)


def _over_values(weights: Any, values: Any) -> Any:
    """Sums `(p, h, b, d)` of values `(p, k, t, d)` by weights `(p, h, b, t)`."""
    prompts, heads, texts, length = weights.shape
    grouped = weights.reshape(prompts, values.shape[1], -1, length)
    if grouped.shape[2] == 1:
        return jnp.sum(grouped[:, :, 0, :, None] * values, axis=2)[:, :, None]
    return jnp.einsum("pkbt,pktd->pkbd", grouped, values).reshape(prompts, heads, texts, -1)


def _affine(hidden: Any, weights: Mapping[str, Any]) -> Any:
    product = _product(weights["kernel"], hidden)
    return product + weights["bias"] if "bias" in weights else product


def _product(kernel: Any, hidden: Any) -> Any:
    """`kernel @ hidden`, float32, of a kernel that may be bfloat16.

    An accelerator rounds what enters, and sums in float32. On a CPU XLA widens a kernel as fast as it multiplies by it,
    but for a product of one column: that takes 10 to 50 times as long as one of two (see the log), so one of zeros
    stands beside.
    """
    if kernel.dtype == hidden.dtype:
        return kernel @ hidden
    if jax.default_backend() != "cpu":
        return jnp.matmul(kernel, hidden.astype(kernel.dtype), preferred_element_type=hidden.dtype)
    wide = kernel.astype(hidden.dtype)
    if hidden.shape[1] > 1:
        return wide @ hidden
    return (wide @ jnp.pad(hidden, ((0, 0), (0, 1))))[:, :1]
