"""Draws among the k likeliest tokens, or from a nucleus, in few readings of a long row. Imports JAX.

`kerasgen.samplers.arithmetic` says what is chosen, and does it in any namespace. Here the same tokens stay, but nothing
is masked that isn't drawn from: the edge is a value among the 64 highest ones, or among the 64 highest ones within
bounds that are narrowed until so few are left. Where equal values lie on both sides of the edge, or 64 don't suffice,
the slower way is taken in the same graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kerasgen.generation import jax_reductions
from kerasgen.samplers import selection

_LEADING = 64
_LANE = 16
_AT_ONCE = 4  # thresholds; with more sums XLA no longer keeps them in registers (see the log)
_BITS_OF_ONE = 0x3F800000

Draw = Callable[[Any, Any], Any]


def pays(size: int) -> bool:
    """Return whether these ways are faster for rows of so many values on this device."""
    return size >= 4 * _LANE * _LEADING and jax.default_backend() == "cpu"


def among_highest(logits: Any, k: Any, uniforms: Any, otherwise: Draw) -> Any:
    """Return one place for each row, drawn among its `k` highest values by inverting their distribution in order.

    Args:
        logits: float32 `(rows, n)`; each row has one above -inf.
        k: int scalar, at least 1.
        uniforms: float32 `(rows,)` in [0, 1).
        otherwise: draws the slower way, from the logits and uniforms of some rows.

    Returns:
        Int32 `(rows,)`.
    """
    highest, places = _leading(logits, None, None)
    last = jnp.minimum(k, _LEADING) - 1
    is_sure = (k < _LEADING) & jnp.all(_is_edge(highest, last[None, None]))

    def draw() -> Any:
        powers = jnp.exp(highest - highest[:, :1])
        powers = jnp.where(jnp.arange(_LEADING) <= last, powers, 0.0)
        # Of each, the sum up to its place; so many are added as fast as they are sorted.
        sums = jnp.sum(jnp.where(places[:, None, :] <= places[:, :, None], powers[:, None, :], 0.0), axis=-1)
        total = jnp.max(sums, axis=-1, keepdims=True)
        reached = (sums > uniforms[:, None] * total) & (powers > 0)
        size = logits.shape[-1]
        found = jnp.min(jnp.where(reached, places, size), axis=-1)
        return jnp.where(found < size, found, jnp.max(jnp.where(powers > 0, places, 0), axis=-1))

    return lax.cond(is_sure, draw, lambda: _one_by_one(otherwise, logits, uniforms))


def from_nucleus(xp: Any, logits: Any, p: Any, uniforms: Any, otherwise: Draw) -> Any:
    """Return one place for each row, drawn among the fewest highest values that hold `p` of the probability.

    Args:
        xp: the array namespace of JAX, for `kerasgen.samplers.selection`.
        logits: float32 `(rows, n)`; each row has one above -inf.
        p: float scalar, above 0; 1 draws from all.
        uniforms: float32 `(rows,)` in [0, 1).
        otherwise: draws the slower way, from the logits and uniforms of some rows.

    Returns:
        Int32 `(rows,)`.
    """
    # Read several times, and computed once.
    powers = lax.optimization_barrier(jnp.exp(logits - jax_reductions.maximum(logits)[:, None]))
    total = jax_reductions.sums([powers])[0][:, None]
    goal = p * total
    low, high, above = _narrowed(powers, goal, total)
    highest, places = _leading(logits, powers, (low, high))
    masses = jnp.where(highest > -jnp.inf, jnp.take_along_axis(powers, places, axis=-1), 0.0)
    reached = above + jnp.cumsum(masses, axis=-1) >= goal
    last = jnp.argmax(reached, axis=-1)[:, None]
    is_sure = (p < 1) & jnp.all(reached[:, -1:] & (highest[:, :1] > -jnp.inf) & _is_edge(highest, last))

    def draw() -> Any:
        edge = jnp.take_along_axis(highest, last, axis=-1)
        return _inverted(xp, logits, powers, edge, uniforms)

    return lax.cond(is_sure, draw, lambda: _one_by_one(otherwise, logits, uniforms))


def _one_by_one(draw: Draw, logits: Any, uniforms: Any) -> Any:
    """Return what `draw` does of each row, with room for the arrays of one row alone.

    The graph's room is claimed anew at each call, and pages of 40 MB take as long as reading them four times.
    """
    return lax.map(lambda row: draw(row[0][None], row[1][None])[0].astype(jnp.int32), (logits, uniforms))


def _inverted(xp: Any, logits: Any, powers: Any, edge: Any, uniforms: Any) -> Any:
    """Return the place at which the sum of a row's powers, of the logits from the edge on, passes its share."""
    rows, size = logits.shape
    width = size // _LANE
    kept = jnp.where(logits >= edge, powers, 0.0)
    parts = [
        jax_reductions.sums([kept[:, : width * _LANE].reshape(rows, _LANE, width)])[0],
        jnp.sum(kept[:, width * _LANE :], axis=-1, keepdims=True),
    ]
    sums = jnp.concatenate(parts, axis=-1)
    cumulative = jnp.cumsum(sums, axis=-1)
    goal = uniforms[:, None] * cumulative[:, -1:]
    part = _first_above(cumulative, sums > 0, goal)
    before = jnp.take_along_axis(cumulative - sums, part, axis=-1)
    # The last part is as wide as the others, and holds what came before it too, which counts no more.
    begun = jnp.minimum(part * width, size - width)
    places = begun + jnp.arange(width, dtype=jnp.int32)
    inside = (places >= part * width) & (jnp.take_along_axis(logits, places, axis=-1) >= edge)
    values = jnp.where(inside, jnp.take_along_axis(powers, places, axis=-1), 0.0)
    return selection.place_of(xp, values, goal, before) + begun[:, 0]


def _first_above(sums: Any, possible: Any, goal: Any) -> Any:
    """Return the first possible place at which the sum passes the goal, or the last possible one, `(rows, 1)`."""
    places = jnp.arange(sums.shape[-1], dtype=jnp.int32)
    passed = jnp.where((sums > goal) & possible, places, sums.shape[-1])
    last = jnp.max(jnp.where(possible, places, 0), axis=-1, keepdims=True)
    return jnp.minimum(jnp.min(passed, axis=-1, keepdims=True), last)


def _is_edge(highest: Any, last: Any) -> Any:
    """Return whether the next lower value is known and lower, or the value at `last` is one that is never drawn."""
    edge = jnp.take_along_axis(highest, jnp.broadcast_to(last, (len(highest), 1)), axis=-1)
    following = jnp.take_along_axis(highest, jnp.minimum(last + 1, _LEADING - 1) + 0 * edge.astype(jnp.int32), axis=-1)
    return ((last < _LEADING - 1) & (following < edge)) | (edge == -jnp.inf)


def _leading(values: Any, powers: Any, bounds: Any) -> tuple[Any, Any]:
    """Return the 64 highest values of each row, highest first, and their places, both `(rows, 64)`.

    Args:
        values: float32 `(rows, n)`.
        powers: float32 like them; None without bounds.
        bounds: the least and the most that the powers of those that count are, each `(rows, 1)`; others are -inf.
    """
    rows, size = values.shape
    lanes = size // _LANE

    def counted(values: Any, powers: Any) -> Any:
        return values if bounds is None else jnp.where((powers >= bounds[0]) & (powers <= bounds[1]), values, -jnp.inf)

    head = counted(values, powers)[:, : lanes * _LANE].reshape(rows, _LANE, lanes)
    _, chosen = _top(jnp.max(head, axis=1))
    places = jnp.concatenate([chosen + lanes * row for row in range(_LANE)], axis=-1)
    if size > lanes * _LANE:
        rest = jnp.arange(lanes * _LANE, size, dtype=jnp.int32)
        places = jnp.concatenate([places, jnp.broadcast_to(rest, (rows, len(rest)))], axis=-1)
    some = None if powers is None else jnp.take_along_axis(powers, places, axis=-1)
    highest, order = _top(counted(jnp.take_along_axis(values, places, axis=-1), some))
    return highest, jnp.take_along_axis(places, order, axis=-1)


def _top(values: Any) -> tuple[Any, Any]:
    # Without the barriers XLA may sort the whole row.
    found: tuple[Any, Any] = lax.optimization_barrier(tuple(lax.top_k(lax.optimization_barrier(values), _LEADING)))
    return found


def _narrowed(powers: Any, goal: Any, total: Any) -> tuple[Any, Any, Any]:
    """Return bounds between which the edge lies, and the sum above them, each float32 `(rows, 1)`.

    A range is divided by the bits of its ends: those of positive floats are ordered as they are, and lie evenly over
    their logarithms. About 64 powers at most are left between the bounds, or equal ones alone.

    Args:
        powers: float32 `(rows, n)`, 1 at most and once at least.
        goal: float32 `(rows, 1)`.
        total: the sum of all powers, float32 `(rows, 1)`.
    """
    # All powers below this could go, and the goal would still be reached; a half for what sums round.
    least = jnp.maximum((total - goal) / (2 * powers.shape[-1]), jnp.finfo(jnp.float32).tiny)
    low, high = _bits(jnp.minimum(least, 1.0)), jnp.full_like(goal, _BITS_OF_ONE, jnp.int32)

    def is_open(low: Any, high: Any, above: Any, reached: Any) -> Any:
        # None between the bounds is less than the lower one, so there are at most so many.
        return (low < high) & (reached - above > _LEADING * _floats(low))

    def thresholds(low: Any, high: Any) -> list[Any]:
        step = jnp.maximum((high - low) // (_AT_ONCE + 1), 1)
        return [jnp.minimum(low + step * part, high) for part in range(1, _AT_ONCE + 1)]

    def goes_on(state: Any) -> Any:
        return jnp.any(is_open(*state[:4]))

    def divide(state: Any) -> Any:
        low, high, above, reached, *at = state
        sums = jax_reductions.sums([jnp.where(powers >= _floats(threshold), powers, 0.0) for threshold in at])
        new_low, new_high, new_above, new_reached = low, high, above, reached
        masses = [mass[:, None] for mass in sums]
        for threshold, mass in zip(at, masses, strict=True):
            new_low, new_reached = (
                jnp.where(mass >= goal, new, old) for new, old in ((threshold, new_low), (mass, new_reached))
            )
        for threshold, mass in reversed(list(zip(at, masses, strict=True))):
            new_high, new_above = (
                jnp.where(mass >= goal, old, new) for new, old in ((threshold - 1, new_high), (mass, new_above))
            )
        was_open = is_open(low, high, above, reached)
        news = ((new_low, low), (new_high, high), (new_above, above), (new_reached, reached))
        state = [jnp.where(was_open, new, old) for new, old in news]
        return (*state, *thresholds(state[0], state[1]))

    # Thresholds come from the turn before: XLA would compute them again for each power.
    begun = (low, high, jnp.zeros_like(goal), total, *thresholds(low, high))
    low, high, above, *_ = lax.while_loop(goes_on, divide, begun)
    return _floats(low), _floats(high), above


def _bits(values: Any) -> Any:
    return lax.bitcast_convert_type(values, jnp.int32)


def _floats(bits: Any) -> Any:
    return lax.bitcast_convert_type(bits, jnp.float32)
