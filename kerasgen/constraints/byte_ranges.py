"""Converts ranges of code points to ranges of bytes, so that an automaton over characters can be walked by bytes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

Bytes: TypeAlias = tuple[tuple[int, int], ...]
"""For each byte of a character the first and the last value it may have."""

_LAST_OF_LENGTH = (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)
_SURROGATES = (0xD800, 0xDFFF)


class Inside:
    """The state of an automaton before or inside a character: which bytes may be left, and where they lead.

    Args:
        arcs: ranges of code points with the state that each leads to.
    """

    __slots__ = ("_hash", "_left")

    def __init__(self, arcs: Iterable[tuple[int, int, Hashable]] = ()) -> None:
        self._put([(split, state) for first, last, state in arcs for split in byte_ranges(first, last)])

    def _put(self, left: Iterable[tuple[Bytes, Hashable]]) -> None:
        self._left = tuple(left)
        self._hash = hash(self._left)

    def steps(self) -> Mapping[int, Hashable]:
        """Return the bytes that may follow, each with the state that it leads to."""
        after: dict[int, list[tuple[Bytes, Hashable]]] = {}
        for (head, *rest), state in self._left:
            for byte in range(head[0], head[1] + 1):
                after.setdefault(byte, []).append((tuple(rest), state))
        return {byte: _state(left) for byte, left in after.items()}

    def ways(self) -> set[tuple[int, Hashable]]:
        """Return how many bytes may be missing, each with the state that they lead to."""
        return {(len(split), state) for split, state in self._left}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inside) and self._left == other._left

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._left,)


def _state(left: list[tuple[Bytes, Hashable]]) -> Hashable:
    """Return the state after the character if no byte is left, else a state inside it."""
    if not left[0][0]:
        return left[0][1]
    return _restore(left)


def _restore(left: Iterable[tuple[Bytes, Hashable]]) -> Inside:
    inside = Inside()
    inside._put(left)
    return inside


@lru_cache(maxsize=4096)
def byte_ranges(first: int, last: int) -> tuple[Bytes, ...]:
    """Return sequences of byte ranges that together are the UTF-8 of the code points from `first` to `last`.

    Surrogates are no characters and are left out.

    Source: Russ Cox 2010, "Regular expression matching in the wild" (the construction of RE2).
    """
    return tuple(_split(first, last))


def _split(first: int, last: int) -> Iterator[Bytes]:
    if first > last:
        return
    low, high = _SURROGATES
    if first <= high and last >= low:
        yield from _split(first, low - 1)
        yield from _split(high + 1, last)
        return
    for limit in _LAST_OF_LENGTH:
        if first <= limit < last:
            yield from _split(first, limit)
            yield from _split(limit + 1, last)
            return
    # The same length: split until every byte but the first ones runs over a whole range.
    for bits in (6, 12, 18):
        mask = (1 << bits) - 1
        if last > 0x7F and first & ~mask != last & ~mask:
            if first & mask:
                yield from _split(first, first | mask)
                yield from _split((first | mask) + 1, last)
                return
            if last & mask != mask:
                yield from _split(first, (last & ~mask) - 1)
                yield from _split(last & ~mask, last)
                return
    yield tuple(zip(chr(first).encode(), chr(last).encode(), strict=True))
