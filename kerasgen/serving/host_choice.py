"""Chooses a text's next token on the host, where no compiled graph does: penalties, excluded words, other samplers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.generation.engine import check_finite, highest_of
from kerasgen.generation.logits_processors import Constraints
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers import arithmetic
from kerasgen.serving.texts import Text, Token, uniforms_of
from kerasgen.tokens.base import Tokenizer


def choose(text: Text, logits: npt.NDArray[Any], tokenizer: Tokenizer) -> Token:
    """Return the next token of a text.

    Args:
        text: the text.
        logits: float `(vocabulary_size,)`.
        tokenizer: whose ids they are.

    Raises:
        GenerationError: the logits are not finite.
    """
    row = logits[None]
    check_finite(row)
    ids = np.array([[*text.prompt, *text.token_ids]], dtype=np.int32)
    utf8 = None if text.utf8 is None else Utf8States(text.utf8, np.array([text.utf8_state]))
    states = None if text.constraint is None else [text.constraint]
    constraints = Constraints(text.sampler, tokenizer)
    masked = constraints.apply(row, ids, np.array([ids.shape[1]]), states, utf8)
    uniforms = np.asarray(uniforms_of([text]), dtype=np.float64)
    token_id = int(text.sampler.choose(np, masked, uniforms)[0])
    if text.logprobs is None:
        return Token(token_id, None)
    return token_of(row, token_id, text.logprobs)


def token_of(row: npt.NDArray[Any], token_id: int, count: int) -> Token:
    """Return a token with its log-probability and the `count` likeliest ones, of logits `(1, vocabulary_size)`."""
    logprobs = (row.astype(np.float64) - arithmetic.log_partition(row))[0]
    ids = highest_of(row, count, None)[0].tolist() if count else []
    return Token(token_id, float(logprobs[token_id]), tuple((n, float(logprobs[n])) for n in ids))
