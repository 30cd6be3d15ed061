"""Prompt lookup: what followed the text's last tokens where they stood before is proposed as what comes next.

Source: Saxena 2023, "Prompt lookup decoding"; an n-gram of the text takes the place of a draft model.
"""

from __future__ import annotations

from collections.abc import Sequence

_NGRAM_SIZES = (3, 2)
_FIRST_WIDTH = 3
# Steps without a proposal after one of which nothing was right, doubled each time: a pass of several columns costs more
# than one step, and a text that doesn't repeat itself should not pay for it.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 8, 128


class PromptLookup:
    """Proposals for one text, fewer of them where they are wrong.

    Args:
        num_tokens: proposed at once, at most; at least 1.

    Attributes:
        proposed: tokens proposed so far.
        accepted: of these, tokens that the sampler chose too.
        pause: steps until the next proposal.
    """

    def __init__(self, num_tokens: int) -> None:
        self._most = num_tokens
        self._width = min(num_tokens, _FIRST_WIDTH)
        self._last_pause = 0
        self._followed: dict[tuple[int, ...], int] = {}  # n-gram to the place after it, the latest
        self._indexed = 0
        self.proposed = self.accepted = self.pause = 0

    def propose(self, text: Sequence[int], room: int) -> list[int]:
        """Return the tokens that may come next; none where nothing is known or during a pause.

        Args:
            text: all token ids so far, those of earlier calls first.
            room: how many to return at most.
        """
        for place in range(self._indexed, len(text)):  # `place` follows an n-gram that ends before it
            for size in _NGRAM_SIZES:
                if place >= size:
                    self._followed[tuple(text[place - size : place])] = place
        self._indexed = len(text)
        if self.pause:
            return []
        known = (self._followed.get(tuple(text[-size:])) for size in _NGRAM_SIZES)
        place = next((found for found in known if found is not None), 0)  # no n-gram ends before the first token
        if not place:
            return []
        found: list[int] = []
        period = len(text) - place  # where the text repeats itself this fast, so does what is proposed
        for n in range(min(self._width, room)):
            found.append(text[place + n] if n < period else found[n - period])
        return found

    def learn(self, proposed: int, accepted: int) -> None:
        """Count what came of a proposal, and propose more or less from now on."""
        self.proposed += proposed
        self.accepted += accepted
        if accepted == proposed:
            self._width = min(2 * self._width + 1, self._most)
        elif 2 * accepted < proposed:
            self._width = max(1, min(self._width, proposed) // 2)
        if accepted:
            self._last_pause = 0
        else:
            self._last_pause = min(max(2 * self._last_pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            self._width = min(self._most, _FIRST_WIDTH)
            self.pause = self._last_pause

    def rest(self, steps: int) -> None:
        """Count steps that were taken without a proposal."""
        self.pause = max(0, self.pause - steps)
