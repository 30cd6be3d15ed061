"""Keeps the highest values of a row and draws one of them, exactly and without sorting; `arithmetic` builds on it.

On a host NumPy partitions or sorts. In a graph, where a sort of 50,000 values takes longer than a model's layer, the
edge between what stays and what goes is looked for among the 64 highest values; where it is below them, by dividing
the range of values, and of float32's bit patterns, which are ordered as the values are, until one value is left in it.
Ties at the edge go to the lower places in both.
"""

from __future__ import annotations

from typing import Any

# Values are summed in columns of so many, the columns in a second step: a graph adds columns at once, and a running sum
# over all of them would cost more than the model's smaller layers.
_WIDTH = 256

# So many of the highest values are sorted in a graph, and found in lanes of so many values: 64 lanes hold them.
_LEADING = 64
_LANE = 16


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
    edge, counted = _edge(xp, values, keys, None, xp.cast(counts, values.dtype))
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
    edge, mass = _edge(xp, values, keys, masses, xp.zeros_like(masses[:, :1]) + goal)
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
    return place_of(xp, probabilities, None, None, uniforms)


def place_of(xp: Any, values: Any, goal: Any, before: Any, shares: Any = None) -> Any:
    """Return the place at which each row's running sum passes its goal; see `draw`.

    Args:
        xp: the array namespace.
        values: float `(rows, n)`, at least 0, one in each row above.
        goal: float `(rows, 1)`; None where `shares` say it.
        before: float `(rows, 1)`, what the sums begin with; None for nothing.
        shares: float `(rows,)` in [0, 1), the goal as a share of the row's sum.
    """
    size = values.shape[-1]
    # Whole columns are read as they lie. XLA would pad all values one by one, which takes as long as all the rest.
    whole = size // _WIDTH
    parts, last = None, values[:, whole * _WIDTH :]
    sums = []
    if whole:
        parts = xp.reshape(values[:, : whole * _WIDTH], (values.shape[0], whole, _WIDTH))
        sums.append(xp.sum(parts, axis=-1))
    if size > whole * _WIDTH:
        last = xp.pad(last, ((0, 0), (0, _WIDTH - (size - whole * _WIDTH))))
        sums.append(xp.sum(last, axis=-1, keepdims=True))
    sums = xp.concatenate(sums, axis=-1) if len(sums) > 1 else sums[0]
    cumulative = xp.cumsum(sums, axis=-1)
    if goal is None:
        goal = xp.expand_dims(shares, -1) * cumulative[:, -1:]  # scaled by the sum as it came out, not by 1
    if before is not None:
        cumulative = cumulative + before
    part = _reached(xp, cumulative, sums > 0, goal)
    inside = last
    if whole:
        column = xp.expand_dims(xp.expand_dims(xp.minimum(part, whole - 1), -1), -1)
        inside = xp.squeeze(xp.take_along_axis(parts, column, axis=1), axis=1)
        if size > whole * _WIDTH:
            inside = xp.where(xp.expand_dims(part, -1) < whole, inside, last)
    begun = xp.take_along_axis(cumulative - sums, xp.expand_dims(part, -1), axis=1)
    place = part * _WIDTH + _reached(xp, xp.cumsum(inside, axis=-1) + begun, inside > 0, goal)
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
    bits = xp.view(xp.where(values == 0, 0.0, values), "int32")  # XLA leaves a sum with 0 out, and -0 as it is
    return xp.where(bits < 0, xp.bitwise_xor(bits, xp.full_like(bits, 0x7FFFFFFF)), bits)


def _valued(xp: Any, keys: Any) -> Any:
    """Return the float32 whose key each is."""
    return xp.view(xp.where(keys < 0, xp.bitwise_xor(keys, xp.full_like(keys, 0x7FFFFFFF)), keys), "float32")


def _edge(xp: Any, values: Any, keys: Any, masses: Any, goal: Any) -> tuple[Any, Any]:
    """Return a key so that the mass from it upwards reaches the goal and the mass above it doesn't, and the latter.

    Where one value alone can be the edge, the key may be the one below it, and the mass the goal: nothing at the key is
    needed then. Where the goal is never reached, the key is the lowest one of a mass above 0, or the one below it.

    Args:
        xp: the array namespace.
        values: float32 `(rows, n)`.
        keys: theirs, as of `_ordered`.
        masses: float32 `(rows, n)`; None for 1 each.
        goal: float32 `(rows, 1)`.
    """
    size = values.shape[-1]
    leading, leading_masses = _leading(xp, values, masses)
    cumulative = xp.cumsum(leading_masses, axis=-1)
    is_there = cumulative[:, -1:] >= goal
    first = xp.expand_dims(xp.argmax(xp.where(cumulative >= goal, 1, 0), axis=-1), -1)
    high = xp.where(is_there, xp.take_along_axis(leading, first, axis=-1), leading[:, -1:])
    mass = xp.sum(xp.where(leading > high, leading_masses, 0.0), axis=-1, keepdims=True)
    lowest = xp.min(keys if masses is None else xp.where(masses > 0, keys, 0x7FFFFFFF), axis=-1, keepdims=True)
    low = xp.where(is_there, high, lowest)
    left = xp.zeros_like(goal) + float(size)  # values that may be the edge; exact in float32, up to 2**24
    # A namespace that sums several arrays while it reads them once divides a range into four.
    halvings = 2 if hasattr(xp, "sums") else 1
    counts_left = masses is None or halvings > 1

    def is_open(low: Any, high: Any, left: Any) -> Any:
        return xp.logical_and(low < high, left > 1)

    def goes_on(turn: Any, low: Any, high: Any, mass: Any, reached: Any, left: Any, *thresholds: Any) -> Any:
        return xp.any(is_open(low, high, left))

    def divide(turn: Any, low: Any, high: Any, mass: Any, reached: Any, left: Any, *thresholds: Any) -> tuple[Any, ...]:
        # The edge lies in [low, high], `mass` lies above `high`, and `reached` from `low` upwards. Thresholds come from
        # the turn before: XLA would compute them again for each value.
        parts = [xp.where(keys >= threshold, 1.0 if masses is None else masses, 0.0) for threshold in thresholds]
        if masses is not None and counts_left:
            # One comparison of what wraps around: XLA would branch on two.
            inside = xp.cast(keys - low, "uint32") <= xp.cast(high - low, "uint32")
            parts.append(xp.where(inside, 1.0, 0.0))
        sums = xp.sums(parts) if halvings > 1 else [xp.sum(part, axis=-1, keepdims=True) for part in parts]
        new_low, new_high, new_mass, new_reached = low, high, mass, reached
        for threshold, above in zip(thresholds, sums, strict=False):
            is_reached = above >= goal
            new_low, new_reached = xp.where(is_reached, threshold, new_low), xp.where(is_reached, above, new_reached)
        for threshold, above in reversed(list(zip(thresholds, sums, strict=False))):
            is_reached = above >= goal
            new_high, new_mass = xp.where(is_reached, new_high, threshold - 1), xp.where(is_reached, new_mass, above)
        new_left = left
        if counts_left:
            new_left = new_reached - new_mass if masses is None else sums[-1]
        before, after = (low, high, mass, reached, left), (new_low, new_high, new_mass, new_reached, new_left)
        was_open = is_open(low, high, left)
        state = [xp.where(was_open, new, old) for new, old in zip(after, before, strict=True)]
        return (turn + 1, *state, *_thresholds(xp, turn + 1, state[0], state[1], halvings))

    turn = xp.cast(xp.zeros_like(low[0, 0]), "int32")
    begun = (turn, low, high, mass, left, left, *_thresholds(xp, turn, low, high, halvings))
    _, low, high, mass, _, left, *_ = xp.while_loop(goes_on, divide, begun)
    is_alone = xp.logical_and(low < high, left <= 1)
    return xp.where(is_alone, low - 1, low), xp.where(is_alone, xp.maximum(mass, goal), mass)


def _thresholds(xp: Any, turn: Any, low: Any, high: Any, halvings: int) -> list[Any]:
    """Keys above `low` that divide the ranges up to `high` into 2 or 4, by their values and by themselves in turn.

    What a model gives lies evenly over the values, what is of any size over the keys.
    """
    parts = 2**halvings
    shift = xp.zeros_like(low) + halvings
    # The ends' sum could overflow, and their difference too; what wraps around here wraps back.
    step = xp.maximum(xp.right_shift(high, shift) - xp.right_shift(low, shift), 1)
    from_value, to_value = _valued(xp, low), _valued(xp, high)
    half = xp.right_shift(turn, xp.ones_like(turn))
    is_even = xp.equal(half + half, turn)  # LiteRT has no bitwise "and"
    found = []
    for part in range(1, parts):
        by_value = _ordered(xp, from_value * (1 - part / parts) + to_value * (part / parts))
        key = xp.where(is_even, by_value, low + step * part)
        found.append(xp.minimum(xp.maximum(key, low + 1), high))
    return found


def _leading(xp: Any, values: Any, masses: Any) -> tuple[Any, Any]:
    """Return the keys of the highest values of each row, highest first, and their masses, both `(rows, up to 64)`."""
    size = values.shape[-1]
    count = min(_LEADING, size)
    lanes = size // _LANE
    if lanes < 4 * count:
        highest, places = xp.top_k(values, count)
    else:
        head = xp.reshape(values[:, : lanes * _LANE], (values.shape[0], _LANE, lanes))
        _, chosen = xp.top_k(xp.max(head, axis=1), count)
        places = xp.concatenate([chosen + lanes * row for row in range(_LANE)], axis=-1)
        if size > lanes * _LANE:
            rest = lanes * _LANE + xp.expand_dims(xp.arange(size - lanes * _LANE, dtype="int32"), 0)
            places = xp.concatenate([places, xp.zeros_like(chosen[:, :1]) + rest], axis=-1)
        highest, order = xp.top_k(xp.take_along_axis(values, places, axis=-1), count)
        places = xp.take_along_axis(places, order, axis=-1)
    ones = xp.ones_like(highest)
    return _ordered(xp, highest), ones if masses is None else xp.take_along_axis(masses, places, axis=-1)


def _on_host(xp: Any) -> bool:
    return getattr(xp, "__name__", "") == "numpy"
