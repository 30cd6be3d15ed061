"""Plans how prompts are read: which beginnings are copied, and the chunks of the rest. Imports JAX for their type.

A chunk has one of a few sizes, whatever the prompts' lengths, so few graphs are compiled. Its columns are tiles, each
of one prompt; several prompts share a chunk, so no column is spent on making them equally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kerasgen.decoder.jax_chunk import Chunk

SHORTEST = 16
# Columns of a chunk. On a processor a product of 32 to 256 columns is as fast as they get, and each chunk reads all
# weights (see the log). Few sizes are few graphs.
SIZES = (256, 64, 32, 16)
SIZES_OF_HALF = (1024, *SIZES)  # each chunk widens all weights
SIZES_OF_ACCELERATORS = (1024, 256, 64, 16)
TILES = (8, 16, 128)
# Tiles of so many columns are for prompts that fit into one: of 32 prompts of 3 to 6 tokens, they take 37 ms where
# tiles of 16 take 64 (the starter; see the log).
_SHORT = 8
# By how much attention lengthens a column's work for each token of its prompt, in tiles of so many columns or fewer:
# small ones make small products.
_ATTENTION = {16: 8e-4, 128: 2.5e-4}
# A chunk reads all weights, which takes as long as so many columns take to compute, and then some for the call.
_LEAST, _OF_A_CALL = 32, 16
# Tokens of all prompts together for which it pays to read shared beginnings first, in chunks of their own.
_WORTH_IT = 64

Ids = Sequence[int]


@dataclass(frozen=True)
class Beginning:
    """The beginning of a prompt that is in a cache already.

    Args:
        count: how many of its first tokens.
        row: the number of the prompt that begins with them too; None if none does.
    """

    count: int
    row: int | None = None


@dataclass(frozen=True)
class Part:
    """One chunk, and whose its columns are.

    Args:
        chunk: the tokens.
        rows: int `(columns,)`, the number of each column's prompt; -1 of none.
    """

    chunk: Chunk
    rows: npt.NDArray[np.int64]


def room(longest: int) -> int:
    """Return how many places a prompt's cache has: a power of two, or from 256 on one and a half of one."""
    size = SHORTEST
    while size < longest:
        if size >= 256 and size + size // 2 >= longest:
            return size + size // 2
        size *= 2
    return size


def common(one: Ids, other: Ids) -> int:
    """Return how many tokens both begin with."""
    shorter = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:shorter]) != np.asarray(other[:shorter]))
    return int(differ[0]) if len(differ) else shorter


def beginnings(prompts: Sequence[Ids], known: Sequence[int], *, shared: bool = True) -> list[Beginning]:
    """Return what of each prompt needn't be read, for it is known or stands in another; at least one token is read.

    Args:
        prompts: distinct ones.
        known: how many tokens of each were read before this call.
        shared: whether one prompt may begin with what was read of another.
    """
    found = [Beginning(count) for count in known]
    order = sorted(range(len(prompts)), key=lambda row: tuple(prompts[row])) if shared else []
    beside = [common(prompts[a], prompts[b]) for a, b in pairwise(order)]
    for n, row in enumerate(order):
        least, most = len(prompts[row]) - 1, found[row].count
        for m in range(n - 1, -1, -1):  # in this order, the earlier a prompt the less they have in common
            least = min(least, beside[m])
            if least < most or not least:
                break
            # Of prompts that have as much in common the first is taken, so that most can be read together.
            if least > found[row].count or found[row].row is not None:
                found[row], most = Beginning(least, order[m]), least
    saved = sum(one.count - before for one, before in zip(found, known, strict=True))
    return found if saved >= _WORTH_IT else [Beginning(count) for count in known]


def shared(prompts: Sequence[Ids], *, least: int = 32, most: int = 8) -> list[Ids]:
    """Return beginnings that several prompts share, those first by which most tokens needn't be read.

    Args:
        prompts: of a whole call; the same one may come several times.
        least: tokens that a beginning has, or has more than a shorter one that is returned too.
        most: how many beginnings.
    """
    order = sorted({tuple(prompt) for prompt in prompts})
    # At least one token of each prompt is left to read.
    beside = np.array([min(common(a, b), len(a) - 1) for a, b in pairwise(order)], dtype=np.int64)
    found: list[tuple[int, Ids]] = []
    ranges = [(0, len(order), 0)]
    while ranges:
        first, end, above = ranges.pop()
        if end - first < 2:
            continue
        lengths = beside[first : end - 1]
        length = int(lengths.min())
        if length - above >= least:
            found.append(((end - first - 1) * (length - above), order[first][:length]))
            above = length
        edges = [first, *(first + 1 + np.flatnonzero(lengths == length)).tolist(), end]
        ranges += [(start, stop, above) for start, stop in pairwise(edges)]
    return [beginning for _, beginning in sorted(found, reverse=True)[:most]]


def waves(found: Sequence[Beginning]) -> list[list[int]]:
    """Return the prompts by when they can be read: those of a wave begin with what the waves before it read."""
    depths: dict[int, int] = {}

    def depth(row: int) -> int:
        while row not in depths:
            chain = [row]
            while (source := found[chain[-1]].row) is not None and source not in depths:
                chain.append(source)
            top = found[chain[-1]].row
            depths[chain[-1]] = 0 if top is None else depths[top] + 1
        return depths[row]

    by_depth: dict[int, list[int]] = {}
    for row in range(len(found)):
        by_depth.setdefault(depth(row), []).append(row)
    return [by_depth[number] for number in sorted(by_depth)]


def cut(
    prompts: Sequence[Ids],
    rows: Sequence[int],
    starts: Sequence[int],
    places: int,
    sizes: Sequence[int] = SIZES,
    tiles: Sequence[int] = TILES,
) -> list[Part]:
    """Return the chunks that hold these prompts' tokens from their starts on.

    Args:
        prompts: all of them.
        rows: the numbers of those that are read.
        starts: for each of these, how many tokens are not read.
        places: of a prompt in the cache.
        sizes: that a chunk may have, the largest first.
        tiles: columns that a tile may have, the fewest first.
    """
    lengths = [len(prompts[row]) - start for row, start in zip(rows, starts, strict=True)]
    fitting = [tile for tile in tiles if tile != _SHORT or max(lengths) <= tile]
    widest = tiles[-1] if len(rows) == 1 else min(fitting, key=lambda tile: _work(lengths, starts, tile))
    # Of one prompt alone all columns but the last ones are tokens, whatever the tiles.
    whole = sum(lengths) if len(rows) == 1 else sum(_up(length, widest) for length in lengths)
    parts: list[Part] = []
    waiting = [(row, start) for row, start in zip(rows, starts, strict=True)][::-1]
    for size in cover(whole, tuple(sizes)):
        tile = min(widest, size, places)
        token_ids, text_lengths = np.zeros(size, np.int32), np.ones(size, np.int32)
        at = np.tile(np.arange(tile, dtype=np.int32), size // tile)
        owners = np.full(size, -1, np.int64)
        bases, counts = np.zeros((2, size // tile), np.int32)
        for n in range(size // tile):
            if not waiting:
                break
            row, start = waiting.pop()
            prompt, first = prompts[row], n * tile
            count = min(tile, len(prompt) - start)
            token_ids[first : first + count] = prompt[start : start + count]
            owners[first : first + count] = row
            at[first : first + tile] += start
            text_lengths[first : first + tile] = len(prompt)
            bases[n], counts[n] = row * places, count
            if start + count < len(prompt):
                waiting.append((row, start + count))
        parts.append(Part(Chunk(token_ids, at, text_lengths, bases, counts), owners))
    assert not waiting
    return parts


def _up(length: int, tile: int) -> int:
    return -(-length // tile) * tile


def _work(lengths: Sequence[int], starts: Sequence[int], tile: int) -> float:
    keys = sum(start + length for start, length in zip(starts, lengths, strict=True)) / len(lengths)
    return sum(_up(length, tile) for length in lengths) * (1 + _ATTENTION[16 if tile <= 16 else 128] * keys)


def cover(columns: int, sizes: tuple[int, ...]) -> list[int]:
    """Return the sizes of chunks that hold so many columns in the least time, the largest first."""
    largest = sizes[0]
    many = max(columns // largest - 1, 0)
    return [largest] * many + list(_cover(columns - many * largest, sizes)[1])


@lru_cache(maxsize=4096)
def _cover(columns: int, sizes: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    if columns <= 0:
        return 0, ()
    best: tuple[int, tuple[int, ...]] | None = None
    for place, size in enumerate(sizes):
        # Sizes fall, so that each choice is tried in one order only.
        cost, rest = (0, ()) if size >= columns else _cover(columns - size, sizes[place:])
        whole = (max(size, _LEAST) + _OF_A_CALL + cost, (size, *rest))
        if best is None or whole[0] <= best[0]:
            best = whole
    assert best is not None
    return best
