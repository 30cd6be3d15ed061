"""Choose how many tokens to propose at once, from how often proposed tokens were right.

Source: Leviathan et al. 2023, section 3.5, with a pass of several columns that costs more than one of one.
"""

from __future__ import annotations

# How much of what was observed still counts after one more observation.
_KEPT = 0.9
# What each further column adds to a pass of the model, in passes of one column.
_COLUMN_COST = 0.08
# Columns of which no larger number brings more than some hundredths: a column's cost alone bounds what they bring.
_MOST = 256


class ProposalLength:
    """The share of proposed tokens that were right lately, and the number of them that pays most.

    Args:
        most: tokens at once, at most.
        cost: of proposing a token, in steps of the model.
        least: tokens that a step's time must bring for a proposal to pay; 1 is what it brings without.
        prior: right tokens and wrong ones that count before any was observed.
    """

    def __init__(self, most: int, *, cost: float, least: float, prior: tuple[float, float]) -> None:
        self._most, self._cost, self._least = min(most, _MOST), cost, least
        self._right, self._wrong = prior

    @property
    def rate(self) -> float:
        """The share that was right lately."""
        return self._right / (self._right + self._wrong)

    def observe(self, right: int, wrong: int) -> None:
        """Count tokens that were right, and those that were not."""
        self._right = _KEPT * self._right + right
        self._wrong = _KEPT * self._wrong + wrong

    def width(self) -> int:
        """Return how many tokens to propose; 0 where no number of them pays."""
        rate = self.rate
        expected, gain, best = 1.0, 0.0, 0
        for count in range(1, self._most + 1):
            expected += rate**count
            brought = expected / (1 + count * (self._cost + _COLUMN_COST))
            if brought >= gain:
                gain, best = brought, count
        return best if gain > self._least else 0
