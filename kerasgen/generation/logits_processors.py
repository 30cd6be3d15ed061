"""Processes logits on the host before a sampler chooses: penalties, exclusions, constraints and temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import ConstraintState
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers import arithmetic
from kerasgen.samplers.bad_words import BadWords
from kerasgen.samplers.base import SamplerSpec
from kerasgen.tokens.base import Tokenizer


class Constraints:
    """The shared settings of one spec for one tokenizer's texts.

    Args:
        spec: the spec whose penalties, exclusions and temperature to apply.
        tokenizer: says what is text.
    """

    def __init__(self, spec: SamplerSpec, tokenizer: Tokenizer) -> None:
        self._spec = spec
        self._end_token_id = tokenizer.end_token_id
        start_and_end = {*tokenizer.end_token_ids, tokenizer.start_token_id}
        self._start_and_end = tuple(token_id for token_id in start_and_end if token_id is not None)
        self._bad_words = BadWords(spec.bad_words, tokenizer) if spec.bad_words else None

    @property
    def are_none(self) -> bool:
        """Whether nothing but the temperature changes the logits."""
        spec = self._spec
        return spec.repetition_penalty == 1 and not spec.no_repeat_ngram_size and not spec.bad_words

    def apply(
        self,
        logits: npt.NDArray[np.floating[Any]],
        token_ids: npt.NDArray[np.int32],
        lengths: npt.NDArray[np.int64],
        states: Sequence[ConstraintState] | None = None,
        utf8: Utf8States | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return the logits that the spec chooses from, float64.

        Args:
            logits: float `(rows, vocabulary_size)`, of each row's next token.
            token_ids: int `(rows, n)`, the texts, right-padded.
            lengths: int `(rows,)`, tokens of each text.
            states: the states of each row's form, or None.
            utf8: where each row stands in a character, or None where any token may follow.
        """
        # Draws are summed over the whole vocabulary: in float64 the sums don't depend on how it is cut.
        logits = np.asarray(logits, dtype=np.float64)
        excluded = None
        if self._bad_words is not None:
            excluded = np.stack(
                [self._bad_words.excluded(text[:n].tolist()) for text, n in zip(token_ids, lengths, strict=True)]
            )
        if states is not None:
            # A form comes before all else: where it allows nothing the text ends, however the rest would choose.
            formed = allowed_of(states, logits.shape[1], self._end_token_id, utf8)
            excluded = ~formed if excluded is None else excluded | ~formed
        elif utf8 is not None and self.are_none:
            logits = np.where(utf8.allowed(), logits, -np.inf)
        elif utf8 is not None:
            excluded = ~utf8.allowed() if excluded is None else excluded | ~utf8.allowed()
        index = lengths[:, None]
        counted = np.zeros(token_ids.shape, dtype=np.bool_)
        if not self.are_none:
            counted = arithmetic.text_mask(np, token_ids, index, self._start_and_end)
        changed: npt.NDArray[np.float64] = arithmetic.constrain(
            np,
            logits,
            token_ids=token_ids,
            counted=counted,
            index=index,
            repetition_penalty=self._spec.repetition_penalty,
            no_repeat_ngram_size=self._spec.no_repeat_ngram_size,
            excluded=excluded,
            temperature=self._spec.temperature,
            end_token_id=self._end_token_id,
        )
        if states is not None and not self.are_none:
            stuck = ~((changed > -np.inf) & formed).any(axis=1)
            changed[stuck] = np.where(formed[stuck], logits[stuck] / self._spec.temperature, -np.inf)
        return changed


def allowed_of(
    states: Sequence[ConstraintState], vocabulary_size: int, end_token_id: int, utf8: Utf8States | None = None
) -> npt.NDArray[np.bool_]:
    """Return what each text's form allows, bool `(rows, vocabulary_size)`; the end token alone where it is nothing.

    Of that, where `utf8` is given, what keeps the text valid UTF-8, unless nothing does.
    """
    masks = [state.allowed() for state in states]
    every = np.ones(vocabulary_size, dtype=np.bool_)
    allowed = np.stack([every if mask is None else mask for mask in masks])
    if utf8 is not None:
        both = allowed & utf8.allowed()
        allowed = np.where(both.any(axis=1, keepdims=True), both, allowed)
    allowed[~allowed.any(axis=1), end_token_id] = True
    return allowed
