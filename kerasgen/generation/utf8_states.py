"""Keeps the UTF-8 state of each text of a batch, and finds the tokens that leave it valid UTF-8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.valid_utf8 import Utf8Masks


@dataclass(frozen=True)
class Utf8States:
    """States of several texts, in any arrangement.

    Args:
        masks: the masks of the tokenizer.
        states: int of any shape.
    """

    masks: Utf8Masks
    states: npt.NDArray[np.int64]

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, bool `(texts, vocabulary_size)`."""
        return self.masks.allowed(self.states.reshape(-1))

    def after(self, token_ids: npt.NDArray[np.integer[Any]]) -> Utf8States:
        """Return the states after a token for each."""
        return Utf8States(self.masks, self.masks.advance(self.states, token_ids))

    def of(self, places: Any) -> Utf8States:
        """Return those at some places, which index an array."""
        return Utf8States(self.masks, self.states[places])
