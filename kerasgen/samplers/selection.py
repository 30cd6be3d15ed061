"""Keeps the highest values of a row and draws one of them, exactly and without sorting; `arithmetic` builds on it.

On a host NumPy partitions or sorts. In a graph, where a sort of 50,000 values takes longer than a model's layer, the
edge between what stays and what goes is found by halving the range of float32's bit patterns, which are ordered as the
values are. Ties at the edge go to the lower places in both.
"""

from __future__ import annotations

from typing import Any

# Values are summed in columns of so many, the columns in a second step: a graph adds columns at once, and a running sum
# over all of them would cost more than the model's smaller layers.
_WIDTH = 256


def highest_places(xp: Any, values: Any, count: int) -> Any:
    """Return the places of the `count` highest of each row on a host, highest first; of equals, the lower place first.

    Args:
        xp: the module `numpy`.
        values: float `(rows, n)`; none is NaN.
        count: from 1 to `n`.

    Returns:
        Int `(rows, count)`.
    """
    rows, size = values.shape
    if count == 1:
        return xp.argmax(values, axis=-1)[:, None]
    blocks = size // _WIDTH
    if (
        count <= blocks // 2
    ):  # `count` blocks hold a value at least this high, so lower values are not among the highest
        maxima = values[:, : blocks * _WIDTH].reshape(rows, blocks, _WIDTH).max(axis=-1)
        floors = xp.partition(maxima, blocks - count, axis=-1)[:, blocks - count]
    else:
        floors = xp.partition(values, size - count, axis=-1)[:, size - count]
    highest = xp.empty((rows, count), dtype=xp.int64)
    for row, (own, floor) in enumerate(zip(values, floors, strict=True)):
        places = xp.flatnonzero(own >= floor)
        highest[row] = places[xp.argsort(-own[places], kind="stable")[:count]]
    return highest


def keep_highest(xp: Any, values: Any, counts: Any) -> Any:
    """Return which are the `counts` highest of each row; of equals at the edge, the lower places.

    Args:
        xp: the array namespace.
        values: float `(rows, n)`; none is NaN.
        counts: int `(rows, 1)`, from 1 to `n`.

    Returns:
        Bool `(rows, n)`, true exactly `counts` times in each row.
    """
    if _on_host(xp):
        if (counts == counts[:1]).all():
            is_kept = xp.zeros(values.shape, dtype=bool)
            if len(counts):
                xp.put_along_axis(is_kept, highest_places(xp, values, int(counts[0, 0])), True, axis=-1)
            return is_kept
        edge = xp.take_along_axis(xp.sort(values, axis=-1), values.shape[-1] - counts, axis=-1)
        above = values > edge
        room = counts - above.sum(axis=-1, keepdims=True)
        return _fill(xp, above, values == edge, room)
    keys = _ordered(xp, values)
    ones = xp.ones_like(values)
    edge, counted = _edge(xp, keys, ones, xp.cast(counts, values.dtype))
    return _fill(xp, keys > edge, xp.equal(keys, edge), counts - xp.cast(counted, counts.dtype))


def keep_mass(xp: Any, values: Any, masses: Any, goal: Any) -> Any:
    """Return the fewest of the highest values whose masses sum to `goal` or more; of equals, the lower places first.

    Args:
        xp: the array namespace.
        values: float `(rows, n)`; none is NaN.
        masses: float `(rows, n)`, at least 0; values that are equal have equal masses, and none below has more.
        goal: above 0, a number or `(rows, 1)`. All that have a mass stay where the sums don't reach it.

    Returns:
        Bool `(rows, n)`, true at one place at least in each row.
    """
    if _on_host(xp):
        likely_first = xp.flip(xp.sort(masses, axis=-1), axis=-1)
        before = xp.cumsum(likely_first, axis=-1) - likely_first
        counts = (before < goal).sum(axis=-1, keepdims=True)
        # A difference of sums may round below 0 or above the goal by an ulp, and never may the likeliest go.
        return keep_highest(xp, values, xp.maximum(counts, 1))
    keys = _ordered(xp, values)
    edge, mass = _edge(xp, keys, masses, xp.zeros_like(masses[:, :1]) + goal)
    at_edge = xp.equal(keys, edge)
    each = xp.max(xp.where(at_edge, masses, 0.0), axis=-1, keepdims=True)
    missing = xp.maximum(goal - mass, 0.0) / xp.where(each > 0, each, 1.0)
    # As many as fit into a float32 exactly are more than there are.
    room = xp.cast(xp.ceil(xp.minimum(missing, 2.0**24)), "int32")
    return _fill(xp, keys > edge, at_edge, xp.maximum(room, xp.cast(mass <= 0, "int32")))


def draw(xp: Any, probabilities: Any, uniforms: Any) -> Any:
    """Return one place for each row by inverting its cumulative distribution in the order of the places.

    Args:
        xp: the array namespace.
        probabilities: float `(rows, n)`, at least 0, one in each row above; their sum need not be 1.
        uniforms: float `(rows,)` in [0, 1).

    Returns:
        Int `(rows,)`; never a place of probability 0, however the sums round. Of a row of NaN, some place in it.
    """
    size = probabilities.shape[-1]
    columns = -(-size // _WIDTH)
    padded = xp.pad(probabilities, ((0, 0), (0, columns * _WIDTH - size)))
    parts = xp.reshape(padded, (padded.shape[0], columns, _WIDTH))
    sums = xp.sum(parts, axis=-1)
    cumulative = xp.cumsum(sums, axis=-1)
    # Scaled by the sum as it came out, not by 1.
    goal = xp.expand_dims(uniforms, -1) * cumulative[:, -1:]
    part = _reached(xp, cumulative, sums > 0, goal)
    inside = xp.squeeze(xp.take_along_axis(parts, xp.expand_dims(xp.expand_dims(part, -1), -1), axis=1), axis=1)
    before = xp.take_along_axis(cumulative - sums, xp.expand_dims(part, -1), axis=1)
    place = part * _WIDTH + _reached(xp, xp.cumsum(inside, axis=-1) + before, inside > 0, goal)
    return xp.minimum(place, size - 1)  # or a row of NaN would get a place in the padding


def _reached(xp: Any, cumulative: Any, possible: Any, goal: Any) -> Any:
    """The first possible place at which the sum passes the goal, or the last possible one where none does."""
    reached = xp.where(xp.logical_and(cumulative > goal, possible), 1, 0)
    last = possible.shape[-1] - 1 - xp.argmax(xp.flip(xp.where(possible, 1, 0), axis=-1), axis=-1)
    return xp.where(xp.max(reached, axis=-1) > 0, xp.argmax(reached, axis=-1), last)


def _fill(xp: Any, above: Any, at_edge: Any, room: Any) -> Any:
    """Return the values above the edge and the first `room` of those at it, bool `(rows, n)`."""
    if _on_host(xp):
        return above | (at_edge & (xp.cumsum(at_edge, axis=-1) <= room))
    rows, size = at_edge.shape
    places = xp.broadcast_to(xp.expand_dims(xp.arange(size, dtype="int32"), 0), (rows, size))
    # Mostly all fit, and nothing is left to search.
    all_stay = xp.sum(xp.where(at_edge, 1, 0), axis=-1, keepdims=True) <= room
    high = xp.zeros_like(room) + size
    low = xp.where(all_stay, high, xp.zeros_like(room))

    def goes_on(low: Any, high: Any) -> Any:
        return xp.any(low < high)

    def halve(low: Any, high: Any) -> tuple[Any, Any]:
        middle = xp.right_shift(low + high, xp.ones_like(low))
        counted = xp.sum(xp.where(xp.logical_and(at_edge, places < middle), 1, 0), axis=-1, keepdims=True)
        enough = counted >= room
        is_open = low < high
        return (
            xp.where(xp.logical_and(is_open, xp.logical_not(enough)), middle + 1, low),
            xp.where(xp.logical_and(is_open, enough), middle, high),
        )

    low, _ = xp.while_loop(goes_on, halve, (low, high))
    return xp.logical_or(above, xp.logical_and(at_edge, places < low))


def _ordered(xp: Any, values: Any) -> Any:
    """Int32 that are ordered as the float32 `values` are; -0 and 0 are one."""
    bits = xp.view(values + 0.0, "int32")
    return xp.where(bits < 0, xp.bitwise_xor(bits, xp.full_like(bits, 0x7FFFFFFF)), bits)


def _edge(xp: Any, keys: Any, masses: Any, goal: Any) -> tuple[Any, Any]:
    """Return the highest key at which the mass from it upwards reaches the goal, and the mass above it.

    Where the goal is never reached, the lowest key of a mass above 0.
    """
    low = xp.min(xp.where(masses > 0, keys, 0x7FFFFFFF), axis=-1, keepdims=True)
    high = xp.max(keys, axis=-1, keepdims=True)
    mass = xp.zeros_like(goal)

    def goes_on(low: Any, high: Any, mass: Any) -> Any:
        return xp.any(low < high)

    def halve(low: Any, high: Any, mass: Any) -> tuple[Any, Any, Any]:
        # The edge lies in [low, high], and `mass` is what lies above `high`. The ends' sum could overflow, and their
        # difference too.
        one = xp.ones_like(low)
        middle = low + xp.maximum(xp.right_shift(high, one) - xp.right_shift(low, one), one)
        mass_from_middle = xp.sum(xp.where(keys >= middle, masses, 0.0), axis=-1, keepdims=True)
        is_open, reached = low < high, mass_from_middle >= goal
        return (
            xp.where(xp.logical_and(is_open, reached), middle, low),
            xp.where(xp.logical_and(is_open, xp.logical_not(reached)), middle - 1, high),
            xp.where(xp.logical_and(is_open, xp.logical_not(reached)), mass_from_middle, mass),
        )

    low, _, mass = xp.while_loop(goes_on, halve, (low, high, mass))
    return low, mass


def _on_host(xp: Any) -> bool:
    return getattr(xp, "__name__", "") == "numpy"
