"""Groups texts that share their lines, so that a split keeps each group on one side.

A text's lines are its verses or sentences, without punctuation, case and variant characters. Two texts are
near-duplicates if half of the lines of the one that has fewer stand in the other. Texts of few lines are compared by
overlapping pieces of them, which finds a sentence that was reworded in one place. What belongs to the same belongs
together, unless that becomes a tenth of the corpus: texts made after one pattern. Of such a group more is asked.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kerasgen.corpora import splits, text_lines
from kerasgen.corpora.hashing_processes import HashingProcesses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_LINES: Final = 20_000_000
"""Lines of all texts together that are compared, at 20 bytes each. In a larger corpus no groups are looked for."""

SHARED: Final = (0.5, 0.75, 0.9)
"""Share of the shorter text's lines that makes two texts near-duplicates; the second within too large a group."""

LARGE: Final = 0.1
"""A group of more than this share of the texts is too large to stay on one side, if it has more than a few members."""

VERSION: Final = 1
"""Version of the algorithm; another version finds other groups."""

_FEW_MEMBERS = 8
# Of texts that share a line each is compared with all others, or, if there are more than so many, with the next few in
# an order that doesn't depend on the corpus's. Reposts of one text are neighbours in each of their lines and are found.
_ALL_PAIRS, _NEIGHBOURS = 16, 4

_SORTED_AT_ONCE = 500_000  # lines, at some 60 bytes each meanwhile

_ALONE = 100_000  # texts; of a corpus of more, other processes hash the lines too
_PORTION_TEXTS, _PORTION_CHARACTERS = 2_000, 500_000


class NearDuplicates:
    """Collects the texts of a corpus, in any order, and finds which are near-duplicates.

    Args:
        most_lines: stop looking beyond so many.
    """

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        self._most_lines = most_lines
        self._points = _Points()  # of each text; a text's number is the place of its point
        self._lines = _Parts()
        self._pieces = _Parts()
        self._portion: list[str] = []
        self._characters = 0
        self._processes: HashingProcesses | None = None

    def add(self, text: str) -> None:
        """Take in a text."""
        if self._is_over() or not self._points.add(splits.point(text)):
            return
        self._portion.append(text)
        self._characters += len(text)
        if len(self._portion) == _PORTION_TEXTS or self._characters >= _PORTION_CHARACTERS:
            self._hash_portion()

    def _hash_portion(self) -> None:
        texts, first = self._portion, len(self._points) - len(self._portion)
        self._portion, self._characters = [], 0
        if self._processes is None and len(self._points) > _ALONE:
            self._processes = HashingProcesses(self._take)
        if self._processes is None:
            self._take(text_lines.hashed(texts, first))
        else:
            self._processes.add(texts, first)

    def _take(self, found: text_lines.Hashes) -> None:
        self._lines.add(found.lines, found.line_texts)
        self._pieces.add(found.pieces, found.piece_texts)

    def close(self) -> None:
        """End the processes that help."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _finish(self) -> None:
        self._hash_portion()
        processes, self._processes = self._processes, None
        if processes is not None:
            processes.finish()

    def _is_over(self) -> bool:
        return len(self._lines) + len(self._pieces) > self._most_lines

    @property
    def gave_up(self) -> bool:
        """Whether there were too many lines to compare."""
        self._finish()
        return self._is_over()

    def groups(self) -> dict[int, int]:
        """Return the point (see `splits.point`) of each text that has a near-duplicate, and that of its group.

        Time grows as the number of lines does. A group's point depends on its members alone.
        """
        if self.gave_up:
            return {}
        import numpy as np

        points = np.frombuffer(self._points.in_order, np.uint64)
        rank = np.empty(len(points), np.int64)
        rank[np.argsort(points)] = np.arange(len(points))
        pairs = np.concatenate([parts.pairs(rank) for parts in (self._lines, self._pieces)])
        most = max(_FEW_MEMBERS, LARGE * len(points))
        groups_by_point: dict[int, int] = {}
        for members in _groups(pairs, most):
            own = [self._points.in_order[member] for member in members]
            # Not the least of them itself, which would be held out more often the more members there are.
            group = int.from_bytes(hashlib.blake2b(min(own).to_bytes(8, "big"), digest_size=8).digest(), "big")
            groups_by_point.update(dict.fromkeys(own, group))
        return groups_by_point


class _Points:
    """Points of texts, each once, in the order in which they came: 24 to 40 bytes each.

    A table of open addresses, for a `dict` of Python's numbers takes 100 bytes more.
    """

    def __init__(self) -> None:
        self.in_order = array("Q")
        self._zero = False  # an empty place of the table is 0
        self._table = array("Q", bytes(8 << 10))

    def __len__(self) -> int:
        return len(self.in_order)

    def add(self, point: int) -> bool:
        """Take in a point, and say whether it is a new one."""
        if point == 0:
            new, self._zero = not self._zero, True
        else:
            new = self._placed(point)
        if new:
            self.in_order.append(point)
            if 2 * len(self.in_order) > len(self._table):
                self._table = array("Q", bytes(8 * 2 * len(self._table)))
                for one in filter(None, self.in_order):
                    self._placed(one)
        return new

    def _placed(self, point: int) -> bool:
        table, last = self._table, len(self._table) - 1
        place = point & last  # points are hashes
        while (there := table[place]) != point:
            if not there:
                table[place] = point
                return True
            place = (place + 1) & last
        return False


class _Parts:
    """The hashed lines of each text."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._texts = array("i")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, hashes: array[int], texts: array[int]) -> None:
        self._hashes.extend(hashes)
        self._texts.extend(texts)

    def pairs(self, rank: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the pairs of texts that share enough: two numbers, and their share.

        Hashes are compared in portions, by their last bits, so that what is sorted stays small.
        """
        import numpy as np

        if not self._hashes:
            return np.zeros((0, 3))
        hashes, texts = np.frombuffer(self._hashes, np.int64), np.frombuffer(self._texts, np.int32)
        last_bits = hashes.astype(np.uint8)
        portions = 1 << min(8, (len(hashes) // _SORTED_AT_ONCE).bit_length())
        found = array("q")
        for portion in range(portions):
            chosen = np.flatnonzero(last_bits & (portions - 1) == portion)
            for keys in _alike(hashes[chosen], texts[chosen].astype(np.int64), rank):
                found.frombytes(keys.tobytes())
        keys = np.frombuffer(found, np.int64)
        keys.sort()
        counts = np.bincount(texts, minlength=len(rank))
        changes = np.flatnonzero(keys[1:] != keys[:-1]) + 1
        begins = np.concatenate([[0], changes, [len(keys)]]) if len(keys) else np.zeros(1, np.int64)
        close = [np.zeros((0, 3))]
        for at in range(0, len(begins) - 1, _SORTED_AT_ONCE):
            some = begins[at : at + _SORTED_AT_ONCE + 1]
            (first, second), shared = np.divmod(keys[some[:-1]], len(rank)), np.diff(some)
            fewer = np.minimum(counts[first], counts[second])
            enough = (shared >= SHARED[0] * fewer) & (shared >= np.minimum(fewer, 2))
            close.append(np.stack([first[enough], second[enough], shared[enough] / fewer[enough]], axis=1))
        return np.concatenate(close)


def _alike(hashes: NDArray[np.int64], texts: NDArray[np.int64], rank: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield keys of the pairs of texts that share a line, once for each line that they share."""
    import numpy as np

    if not len(hashes):
        return
    order = np.lexsort((rank[texts], hashes))
    hashes, texts = hashes[order], texts[order]
    begins = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    lengths = np.diff(np.append(begins, len(hashes)))
    reach = np.repeat(np.where(lengths <= _ALL_PAIRS, _ALL_PAIRS, _NEIGHBOURS), lengths)
    for distance in range(1, _ALL_PAIRS):
        alike = (hashes[:-distance] == hashes[distance:]) & (reach[distance:] >= distance)
        first, second = texts[:-distance][alike], texts[distance:][alike]
        yield np.minimum(first, second) * len(rank) + np.maximum(first, second)


def _groups(pairs: NDArray[np.float64], most: float, level: int = 0) -> Iterator[list[int]]:
    """Return the groups of linked numbers; a group of more than `most` must share more, until it splits."""
    import numpy as np

    close = pairs[pairs[:, 2] >= SHARED[level]]
    together = _Together()
    for first, second in close[:, :2].astype(np.int64).tolist():
        together.join(first, second)
    for members in together.groups():
        if len(members) <= most:
            yield members
        elif level + 1 < len(SHARED):
            inside = np.isin(close[:, 0], members)
            yield from _groups(close[inside], most, level + 1)


class _Together:
    """A union-find structure: numbers that were joined, directly or through others."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def join(self, first: int, second: int) -> None:
        self._above[self._top(first)] = self._top(second)

    def groups(self) -> Iterator[list[int]]:
        members: dict[int, list[int]] = {}
        for number in list(self._above):
            members.setdefault(self._top(number), []).append(number)
        yield from members.values()

    def _top(self, number: int) -> int:
        above = self._above
        above.setdefault(number, number)
        while above[number] != number:
            above[number] = above[above[number]]
            number = above[number]
        return number
