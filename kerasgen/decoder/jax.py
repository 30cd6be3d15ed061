"""A decoder computed by JAX: it reads prompts, then one token of each text a step. Imports JAX.

Hidden states stand as `(features, rows)` and kernels as `(out, in)`: on a CPU, XLA multiplies that way two to three
times as fast for two to thirty-two rows as the other way round, and as fast for one (measured; see the log).

A cache has two parts. The prompt's holds one row for each prompt. The generated one holds `slots` for each prompt, one
for each text that goes on from it, and is written at one place for all: every text is at its n-th new token, however
long its prompt. Texts that begin at different steps have no prompt's cache, and the generated one is a ring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp

from kerasgen.decoder import positions
from kerasgen.decoder.arithmetic import attention_weights, normalize, soft_cap
from kerasgen.decoder.block import block
from kerasgen.decoder.config import AlibiPositions, DecoderConfig, LearnedPositions
from kerasgen.decoder.jax_chunk import Chunk, ReadHooks
from kerasgen.decoder.jax_hooks import NEVER, XP, Cache, Hooks, product
from kerasgen.decoder.weights import Weights

MANY_ROWS = 16
"""So many rows have their logits computed row by row, and their products on a CPU by Eigen."""

# So many numbers are added by one loop that runs along the last axis; longer sums, number by number (see the log).
_ADDED_AT_ONCE = 16
_MOST_SUMS = 16


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
        hooks = ReadHooks(self.config, chunk, cache)
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
        prompt: Cache | None,
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
            prompt: the prompts' cache; None where the generated cache is a ring that holds each text from its first
                token on, of one slot a text and as long as the longest text.
            valid: bool `(prompts, length)`, which of its places hold a token; None without a prompts' cache.
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

    def _through(self, weights: Weights, hidden: Any, hooks: Hooks) -> Any:
        for index, layer in enumerate(weights["layers"]):
            hidden = block(self.config, index, layer, hidden, hooks)
        return hidden

    def _normed(self, weights: Weights, hidden: Any, hooks: Hooks) -> Any:
        return hooks.norm(hidden, weights["final_norm"]) if self.config.final_norm else hidden

    def _head(self, weights: Weights, hidden: Any) -> Any:
        """Float32 `(rows, vocabulary_size)` of hidden states `(dim, rows)`."""
        config, head, size = self.config, weights["head"], self.vocabulary_size
        if "row_kernel" in head and hidden.shape[1] == 1:
            logits = (hidden[:, 0] @ head["row_kernel"])[None, :size]
        elif "row_kernel" in head and hidden.shape[1] >= MANY_ROWS:
            logits = (jax.lax.optimization_barrier(hidden.T) @ head["row_kernel"])[:, :size]
        elif hidden.shape[1] >= MANY_ROWS:
            # What chooses reads logits row by row: columns of a power of two, which fall into the same places of a
            # processor's cache, made that take longer than the product (see the log).
            kernel = output_kernel(config, weights).astype(hidden.dtype)
            by_row = jax.lax.optimization_barrier(hidden.T)
            logits = jax.lax.dot_general(by_row, kernel, (((1,), (1,)), ((), ())))[:, :size]
        else:
            # The barrier keeps XLA from turning the product round with its result, which would take twice as long.
            logits = jax.lax.optimization_barrier(product(output_kernel(config, weights), hidden)).T[:, :size]
        if config.head_bias:
            logits = logits + head["bias"][:size, 0]
        if config.logit_scale != 1.0:
            logits = logits * config.logit_scale
        return soft_cap(XP, logits, config.logit_soft_cap)


def output_kernel(config: DecoderConfig, weights: Weights) -> Any:
    """Return the kernel of the output layer, `(vocabulary_size, dim)`."""
    return weights["embedding"]["tokens"] if config.tied_head else weights["head"]["kernel"]


class _StepHooks(Hooks):
    """Those of texts, of each of which one token is read."""

    def __init__(
        self,
        config: DecoderConfig,
        places: Any,
        prompt: Cache | None,
        valid: Any,
        generated: Cache,
        slot: Any,
        ancestors: Any,
    ) -> None:
        prompts, _, _, slots, length = generated.keys[0].shape
        texts = places.shape[0] // prompts
        self._prompt, self._generated, self._slot = prompt, generated, slot
        self._masks: dict[int | None, Any]
        if prompt is None:
            places = places[:, None]
            super().__init__(config, places, places + 1)
            # Columns after this one were written a turn of the ring before it, and may be another text's.
            self._key_places = (places - (slot - jnp.arange(length)) % length)[:, None]
            self._masks = {None: (self._key_places >= 0)[:, None]}
            return
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
        self._masks = {None: mask}

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        query, key, value = self._by_heads(index, layer, projected)
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
        scores = _over_keys(query, flat_keys)
        if self._prompt is None:
            gathered = _over_values(self._attention_weights(index, layer, scores), flat_values)
        else:
            prompt_keys, prompt_values = self._prompt.keys[index], self._prompt.values[index]
            scores = jnp.concatenate([_over_keys(query, prompt_keys), scores], axis=3)
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
        return _summed(grouped[:, :, 0, :, None] * keys)[:, :, None]
    return jnp.einsum("pkbd,pkdt->pkbt", grouped, keys).reshape(prompts, heads, texts, -1)


def _over_values(weights: Any, values: Any) -> Any:
    """Sums `(p, h, b, d)` of values `(p, k, t, d)` by weights `(p, h, b, t)`."""
    prompts, heads, texts, length = weights.shape
    grouped = weights.reshape(prompts, values.shape[1], -1, length)
    if grouped.shape[2] == 1:
        weighted = grouped[:, :, 0, :, None] * values
        return (_summed(weighted) if prompts >= MANY_ROWS else jnp.sum(weighted, axis=2))[:, :, None]
    return jnp.einsum("pkbt,pktd->pkbd", grouped, values).reshape(prompts, heads, texts, -1)


def _summed(array: Any) -> Any:
    """Sums along the second last axis; on a CPU of a few numbers at a time, and of these sums."""
    size = array.shape[-2]
    count = size // _ADDED_AT_ONCE
    if size % _ADDED_AT_ONCE or not 1 < count <= _MOST_SUMS or jax.default_backend() != "cpu":
        return jnp.sum(array, axis=-2)
    parts = jnp.sum(array.reshape(*array.shape[:-2], count, _ADDED_AT_ONCE, array.shape[-1]), axis=-2)
    parts = jax.lax.optimization_barrier(parts)
    total = parts[..., 0, :]
    for n in range(1, count):
        total = total + parts[..., n, :]
    return total
