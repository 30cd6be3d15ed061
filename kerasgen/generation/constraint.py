"""What a text must look like, as masks over tokens: the contract between a form and the decoding loops.

Imports the standard library and NumPy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kerasgen.tokens.base import Tokenizer


class ConstraintState(ABC):
    """How far one text has come. The loops ask for the mask before each token, and say which one was chosen."""

    @abstractmethod
    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """Return which tokens may come next, bool `(vocabulary_size,)`, or None for all.

        The end token's place says whether the text may end here. The array is read, never written to, and may be the
        same one at every step. Where it allows nothing, the text ends.
        """

    @abstractmethod
    def advance(self, token_id: int) -> None:
        """Go on by one token, one that was allowed; never the end token."""

    @abstractmethod
    def copy(self) -> ConstraintState:
        """Return a state that goes its own way from here; beam search asks for one for each text it keeps."""


class Constraint(ABC):
    """A form that every generated text has. A frozen value; what is costly to make is kept for each tokenizer."""

    @abstractmethod
    def begin(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> ConstraintState:
        """Return the state before the first generated token.

        Args:
            tokenizer: whose tokens the masks are over.
            prompt: ids of the prompt, without a start token; the constraint says whether it counts as a part.

        Raises:
            GenerateArgumentError: no text of the form goes on from this prompt, or can be written with this tokenizer.
        """
