"""The block's executor for a chunk of prompts: attention tile by tile, over what each tile sees. Imports JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kerasgen.decoder import positions
from kerasgen.decoder.arithmetic import soft_cap
from kerasgen.decoder.config import AlibiPositions, DecoderConfig
from kerasgen.decoder.jax_hooks import NEVER, XP, Cache, Hooks

# Keys whose scores are held at once, for a tile of up to so many columns (see the log).
_BLOCKS = ((8, 16), (16, 64), (128, 128))
_SHORT_TILE = 8  # tiles so small are taken together
_BLOCK_OF_ACCELERATORS = 2048


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


class ReadHooks(Hooks):
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
        on_cpu = jax.default_backend() == "cpu"
        self._one_by_one = on_cpu and self._tile > _SHORT_TILE
        wanted = next((keys for tile, keys in _BLOCKS if self._tile <= tile), _BLOCKS[-1][1])
        self._block = min(wanted if on_cpu else _BLOCK_OF_ACCELERATORS, self._room)

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        """Return what the heads gather, `(heads * size, columns)`, and keep the cache with this chunk in it."""
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
        # One after the other a tile's products keep a processor's cores busy, unless they are too small for that; an
        # accelerator takes all tiles together.
        found = jax.lax.map(gathered, tiles) if self._one_by_one else jax.vmap(gathered)(tiles)
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
