"""Reads prompts in chunks, beginnings that several share once, and what was read before not at all. Imports JAX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation import jax_chunks
from kerasgen.generation.jax_chunks import Beginning, Part

if TYPE_CHECKING:
    from kerasgen.generation.jax_engine import JaxEngine

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reading:
    """Caches and logits of distinct prompts.

    Args:
        lengths: int `(slots,)`, of the prompts; 1 in a slot that has none.
        places: of each slot in the cache.
        found: what of each was not read.
        parts: the chunks that were read.
        states: of each chunk, hidden states `(columns, dim)`.
    """

    lengths: npt.NDArray[np.int32]
    places: int
    found: list[Beginning]
    parts: list[Part]
    states: list[Any]

    @property
    def is_whole(self) -> bool:
        """Whether all of each prompt was read in this call, here or in another of its prompts."""
        return all(one.row is not None or not one.count for one in self.found)

    def valid(self) -> npt.NDArray[np.bool_]:
        """Return which places of the cache hold a token, bool `(slots, places)`."""
        return np.asarray(np.arange(self.places) < self.lengths[:, None])

    def hidden(self) -> Floats:
        """Return the hidden states of each slot's tokens, `(slots, places, dim)`, if all was read in this call."""
        hidden = np.zeros((len(self.lengths), self.places, self.states[0].shape[1]), dtype=np.float32)
        for part, states in zip(self.parts, self.states, strict=True):
            mine = part.rows >= 0
            hidden[part.rows[mine], np.asarray(part.chunk.places)[mine]] = np.asarray(states)[mine]
        for wave in jax_chunks.waves(self.found)[1:]:
            for row in wave:
                count, source = self.found[row].count, self.found[row].row
                hidden[row, :count] = hidden[source, :count]
        return hidden


def read(
    engine: JaxEngine, prompts: Sequence[tuple[int, ...]], slots: int, *, remembered: bool = True, least_places: int = 1
) -> tuple[Any, Cache, Reading]:
    """Read distinct prompts, each into the slot of its number.

    Args:
        engine: whose weights read them, and which may remember texts that begin alike.
        prompts: ids, at least one each.
        slots: of the cache, at least as many.
        remembered: whether what the engine remembers is taken.
        least_places: of each slot in the cache, at least; other places are other graphs.

    Returns:
        Logits after each prompt, `(slots, vocabulary_size)`; keys and values of each slot as `JaxDecoder.step` takes
        them, in which a prompt's tokens come first; and what was read.
    """
    places = jax_chunks.room(max(least_places, *map(len, prompts)))
    texts = [engine.prompts.find([prompt]) if remembered else None for prompt in prompts]
    known = [0 if text is None else text[1] for text in texts]
    found = jax_chunks.beginnings(prompts, known, shared=engine.shares_beginnings)
    cache = engine.nothing(slots * places)
    parts: list[Part] = []
    states: list[Any] = []
    last: list[Any] = [None] * len(prompts)
    for rows in jax_chunks.waves(found):
        for row in rows:
            one, text = found[row], texts[row]
            numbers = (np.int32(row * places), np.int32(one.count))
            if one.row is not None:
                cache = engine.call("copy", _copied, cache, np.int32(one.row * places), *numbers, donate=(0,))
            elif text is not None:
                cache = engine.call("copy remembered", _copied_from, cache, text[0].cache, *numbers, donate=(0,))
        for part in jax_chunks.cut(prompts, rows, [found[row].count for row in rows], places, engine.chunk_sizes):
            hidden, cache = engine.read(part.chunk, cache)
            parts.append(part)
            states.append(hidden)
            at_end = np.flatnonzero(part.chunk.places == part.chunk.text_lengths - 1)
            for column in at_end[part.rows[at_end] >= 0].tolist():
                last[part.rows[column]] = hidden, column
    ends = np.zeros((slots, states[0].shape[1]), dtype=np.float32)
    for row, (hidden, column) in enumerate(last):
        ends[row] = np.asarray(hidden)[column]
    logits = engine.call("logits", engine.decoder.logits, engine.weights, ends)
    lengths = np.array([*map(len, prompts), *[1] * (slots - len(prompts))], dtype=np.int32)
    if slots > 1:
        cache = engine.call(f"slots {slots}", lambda cache: in_slots(cache, slots), cache)
    return logits, cache, Reading(lengths, places, found, parts, states)


def _copied(cache: Cache, source: Any, target: Any, count: Any) -> Cache:
    """The cache with what stands from place `source` on at `target` too."""
    return _moved(cache, lambda cache: cache, source, target, count)


def _copied_from(cache: Cache, other: Cache, target: Any, count: Any) -> Cache:
    """The cache with what another begins with at `target`."""
    return _moved(cache, lambda _: other, jnp.int32(0), target, count)


def _moved(cache: Cache, source_of: Any, source: Any, target: Any, count: Any) -> Cache:
    """The cache with so many places, rounded up, from one place on written at another."""
    size = jax_chunks.SHORTEST

    def move(n: Any, cache: Cache) -> Cache:
        other = source_of(cache)

        def moved(array: Any, taken: Any, axis: int) -> Any:
            some = jax.lax.dynamic_slice_in_dim(taken, source + n * size, size, axis)
            return jax.lax.dynamic_update_slice_in_dim(array, some, target + n * size, axis)

        keys = tuple(moved(key, own, 3) for key, own in zip(cache.keys, other.keys, strict=True))
        values = tuple(moved(value, own, 2) for value, own in zip(cache.values, other.values, strict=True))
        return Cache(keys, values)

    moved: Cache = jax.lax.fori_loop(0, (count + size - 1) // size, move, cache)
    return moved


def in_slots(cache: Cache, slots: int) -> Cache:
    """Return the cache of one prompt's places as that of several."""

    def keys(key: Any) -> Any:
        _, heads, size, places = key.shape
        return jnp.moveaxis(key.reshape(heads, size, slots, places // slots), 2, 0)

    def values(value: Any) -> Any:
        _, heads, places, size = value.shape
        return jnp.moveaxis(value.reshape(heads, slots, places // slots, size), 1, 0)

    return Cache(tuple(map(keys, cache.keys)), tuple(map(values, cache.values)))
