"""Counts the fewest tokens that complete a text from each state, so that it is complete when its room ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import State

if TYPE_CHECKING:
    from kerasgen.constraints.masks import TokenMasks

# States that are looked through. An automaton with more of them (after those that are alike are taken together) is not
# counted, and its texts may be cut.
_MOST_STATES = 1500
_FAR = np.iinfo(np.int32).max
_END = -1
# Of masks that depend on the room, so much is kept.
_KEPT_BYTES = 2**25


class Distances:
    """Distance in tokens from each state to a complete text, computed on first use.

    Args:
        masks: the masks whose states are counted.
    """

    def __init__(self, masks: TokenMasks) -> None:
        self._masks = masks
        self._fewest: dict[State, int] | None = None
        self._counted = False
        self._farthest = 0
        self._after: dict[int, npt.NDArray[np.int32]] = {}  # tokens needed after each token
        self._in_time: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}

    def fewest(self, state: int) -> int | None:
        """Return the fewest tokens that complete a text from here, the end token not among them; None if unknown."""
        return self.fewest_of(self._masks.likeness(state))

    def fewest_of(self, likeness: State) -> int | None:
        """Return the fewest tokens that complete a text from the states of a likeness; None if unknown."""
        self._count()
        return None if self._fewest is None else self._fewest.get(likeness)

    def counted(self) -> Mapping[State, int]:
        """Return the fewest tokens of each likeness that was found; nothing if they are not counted."""
        self._count()
        return self._fewest or {}

    @property
    def farthest(self) -> int | None:
        """The most tokens that any state needs; None if they are not counted."""
        self._count()
        return None if self._fewest is None else self._farthest

    def may_matter(self, remaining: int) -> bool:
        """Return whether a text with so much room could choose a token from which it can't be completed in time."""
        self._count()
        return self._fewest is not None and remaining <= self._farthest

    def in_time(self, state: int, remaining: int) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next so that the text can still be completed, bool `(vocabulary_size,)`.

        Args:
            state: where the text stands.
            remaining: tokens that it may still get.
        """
        # Texts of a batch stand in few states with the same room: without this, half of a step's time went here.
        in_time = self._in_time.get((state, remaining))
        if in_time is not None:
            return in_time
        with self._masks.lock:
            if len(self._in_time) * self._masks.vocabulary_size >= _KEPT_BYTES:
                self._in_time.clear()
                self._after.clear()
            in_time = self._in_time[state, remaining] = self._find_in_time(state, remaining)
            in_time.flags.writeable = False
        return in_time

    def _find_in_time(self, state: int, remaining: int) -> npt.NDArray[np.bool_]:
        allowed = self._masks.row(state)
        away = self._after.get(state)
        if away is None:
            reached = self._masks.reached(state)
            states, places = np.unique(reached, return_inverse=True)
            away = np.array([_END if target < 0 else self._away(target) for target in states.tolist()], dtype=np.int32)[
                places
            ]
            self._after[state] = away
        # The end token is allowed where the text is complete; it needs no room after it.
        in_time: npt.NDArray[np.bool_] = allowed & (away <= remaining - 1)
        if not in_time.any():  # alike states may differ a little: then the shortest way, whatever the room
            in_time = allowed & (away == away[allowed].min())
        return in_time

    def _away(self, state: int) -> int:
        fewest = self.fewest(state)
        return _FAR if fewest is None else fewest

    def _count(self) -> None:
        """Breadth first from the start to see which states there are, and back from the complete ones."""
        if self._counted:
            return
        with self._masks.lock:
            if not self._counted:
                self._count_all()
                self._counted = True  # last, for other threads don't wait once it is set

    def _count_all(self) -> None:
        masks = self._masks
        likeness = masks.likeness(masks.start)
        seen = {likeness: masks.start}
        before: dict[State, set[State]] = {likeness: set()}
        waiting = deque([likeness])
        while waiting:
            current = waiting.popleft()
            for state in np.unique(masks.reached(seen[current])).tolist():
                if state < 0:
                    continue
                other = masks.likeness(state)
                if other not in seen:
                    seen[other] = state
                    before[other] = set()
                    waiting.append(other)
                before[other].add(current)
            if len(seen) > _MOST_STATES:
                return
        fewest = {current: 0 for current, state in seen.items() if masks.is_complete(state)}
        back = deque(fewest)
        while back:
            current = back.popleft()
            for other in before[current]:
                if other not in fewest:
                    fewest[other] = fewest[current] + 1
                    back.append(other)
        self._fewest = fewest
        # A token may lead to any state, so with more room than the farthest needs, none is out of reach.
        self._farthest = max(fewest.values(), default=0)
