"""Decides whether a few exact logits certainly hold the highest ones, when the others are only estimated.

An estimate multiplies a row `w` of the output layer, rounded to 8 bits, with the hidden state `h`, rounded to 8 bits as
well. By Cauchy and Schwarz it is off by `row_error * |h| + (largest_row + row_error) * |h - rounded h|` at the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

_SLACK = 1e-4  # of the norms' product, for sums of float32


@dataclass(frozen=True)
class Shortlist:
    """Some of a step's logits.

    Args:
        ids: int `(count,)`.
        logits: float32 `(count,)`; -inf where an id is no token.
        floor: no other token's logit is estimated higher.
        hidden: float32 `(hidden_dim,)`, the state that all logits follow from.
    """

    ids: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float32]
    floor: float
    hidden: npt.NDArray[np.float32]

    def among(self, allowed: npt.NDArray[np.bool_]) -> Shortlist:
        """Return the same with -inf for each token that is not allowed, bool `(vocabulary_size,)`; no id is beyond it.

        What `holds` says is then said of the allowed ones: no other of them is estimated above the floor either.
        """
        may_come = ~np.isneginf(self.logits)
        may_come[may_come] = allowed[self.ids[may_come]]
        return replace(self, logits=np.where(may_come, self.logits, np.float32(-np.inf)))

    def holds(self, count: int, settings: Mapping[str, Any]) -> bool:
        """Return whether the `count` highest of all logits are certainly among these.

        Args:
            count: how many.
            settings: the norms that the exporter measured: `row_error` and `largest_row`.
        """
        if count > len(self.logits):
            return False
        lowest = np.partition(self.logits, len(self.logits) - count)[len(self.logits) - count]
        norm = float(np.linalg.norm(self.hidden))
        row_error, largest_row = settings["row_error"], settings["largest_row"]
        error = row_error * norm + (largest_row + row_error) * rounding_error(self.hidden)
        # False for NaN, too: then all logits are computed, and whoever reads those says what is wrong.
        return bool(lowest > self.floor + error + _SLACK * largest_row * norm)


def rounding_error(hidden: npt.NDArray[np.float32]) -> float:
    """Return the most that rounding a vector to 8 bits may move it, as a Euclidean distance.

    A number moves by half a step; next to the ends of the range, where it may be cut, by a whole one. A step is the
    largest magnitude's 127th part, which is also the most that it is where the range is not symmetric.
    """
    magnitudes = np.abs(hidden)
    largest = float(magnitudes.max())
    step = largest / 127
    at_ends = int((magnitudes >= largest - step).sum())
    at_ends += int((hidden <= hidden.min() + step).sum()) + int((hidden >= hidden.max() - step).sum())
    return float(step * np.sqrt(0.25 * len(hidden) + 0.75 * min(at_ends, len(hidden))))
