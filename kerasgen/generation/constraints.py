"""What every spec does to the logits before it chooses, on the host: penalties, exclusions and temperature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kerasgen.models.base import LanguageModel
from kerasgen.samplers import arithmetic
from kerasgen.samplers.bad_words import BadWords
from kerasgen.samplers.base import SamplerSpec


class Constraints:
    """The shared settings of one spec for one model's texts.

    Args:
        spec: whose penalties, exclusions and temperature to apply.
        model: whose tokenizer says what is text.
    """

    def __init__(self, spec: SamplerSpec, model: LanguageModel) -> None:
        tokenizer = model.tokenizer
        self._spec = spec
        self._end_token_id = tokenizer.end_token_id
        frame = {tokenizer.end_token_id, tokenizer.start_token_id}
        self._frame = tuple(token_id for token_id in frame if token_id is not None)
        self._bad_words = BadWords(spec.bad_words, tokenizer) if spec.bad_words else None

    def apply(
        self, logits: npt.NDArray[np.float64], token_ids: npt.NDArray[np.int32], index: int
    ) -> npt.NDArray[np.float64]:
        """Return the logits that the spec chooses from.

        Args:
            logits: float `(rows, vocabulary_size)`, for the token at `index`.
            token_ids: int `(rows, length)`, the texts in the positions before `index`.
            index: at least 1.
        """
        excluded = None
        if self._bad_words is not None:
            excluded = np.stack([self._bad_words.excluded(text[:index]) for text in token_ids])
        changed: npt.NDArray[np.float64] = arithmetic.constrain(
            np,
            logits,
            token_ids=token_ids,
            counted=arithmetic.text_mask(np, token_ids, index, self._frame),
            index=index,
            repetition_penalty=self._spec.repetition_penalty,
            no_repeat_ngram_size=self._spec.no_repeat_ngram_size,
            excluded=excluded,
            temperature=self._spec.temperature,
            end_token_id=self._end_token_id,
        )
        return changed
