"""The texts that a server writes: what each asks for, where it stands, and what is told of it step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import ConstraintState
from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.generation.detokenize import Writer
from kerasgen.samplers import randomness
from kerasgen.samplers.base import TokenSampler

Finish: TypeAlias = Literal["stop", "length"]
MOST_LOGPROBS = 20
"""Alternatives to a token that are told at most, as OpenAI's API has it."""


@dataclass(frozen=True)
class Token:
    """A token with what the model gave it, whatever the sampler made of that.

    Args:
        token_id: the token.
        logprob: in nats; None for a first token, which nothing predicts.
        top: the likeliest tokens with their log-probabilities, the likeliest first; as many as were asked for.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Event:
    """One event of a text that is being written.

    Args:
        piece: characters that became certain.
        token: the token that was chosen, or None.
        place: where the token begins, in characters of the text.
        prompt: the prompt's tokens with their log-probabilities, where they were asked for.
        finish: why the text ended, with the last event.
        error: why it could not be written, with the last event.
    """

    piece: str = ""
    token: Token | None = None
    place: int = 0
    prompt: tuple[Token, ...] | None = None
    finish: Finish | None = None
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.error is not None


@dataclass(eq=False)
class Text:
    """One text that is to be written.

    Args:
        prompt: ids, the start token with them.
        limit: tokens of the whole text; as many as the prompt has for a text that is only read.
        sampler: chooses its tokens.
        seed: of its random numbers.
        copy: the number of the text among those of one prompt.
        writer: turns ids into characters.
        tell: is called with what became known, each time that the events of a step are handed over.
        streams: whether each token is told of at once; if not, all of them with the last.
        constraint: where the text stands in its form, or None.
        utf8: what keeps it valid UTF-8, or None.
        logprobs: how many likeliest tokens are told of with each; None for no log-probabilities.
        scores_prompt: whether the prompt's log-probabilities are asked for.

    Attributes:
        token_ids: those written so far.
        cancelled: whether nobody waits for it any more; any thread may set it.
        kept: events that are not told of yet.
        began: when it was asked for, of `time.perf_counter`.
    """

    prompt: tuple[int, ...]
    limit: int
    sampler: TokenSampler
    seed: int
    copy: int
    writer: Writer
    tell: Callable[[Text, list[Event]], None]
    streams: bool = True
    constraint: ConstraintState | None = None
    utf8: Utf8Masks | None = None
    logprobs: int | None = None
    scores_prompt: bool = False
    token_ids: list[int] = field(default_factory=list)
    cancelled: bool = False
    kept: list[Event] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.key: npt.NDArray[np.uint32] = randomness.keys([self.seed], [self.prompt], [self.copy])[0]
        self.utf8_state = 0 if self.utf8 is None else self.utf8.state_after(self.prompt)

    @property
    def length(self) -> int:
        """Tokens so far, the prompt's with them."""
        return len(self.prompt) + len(self.token_ids)

    @property
    def is_only_read(self) -> bool:
        """Whether no token is to be written."""
        return self.limit <= len(self.prompt)

    def take(self, token: Token, ends: tuple[int, ...]) -> Event:
        """Add a token, and return what is to be told of it."""
        token_id = token.token_id
        self.token_ids.append(token_id)
        place = self.writer.read
        piece = self.writer.push(token_id)
        ended = token_id in ends
        if ended or self.writer.stopped is not None or self.length >= self.limit:
            piece += self.writer.finish(ended=ended and self.utf8 is None)
            stopped = ended or self.writer.stopped is not None
            return Event(piece, token, place, finish="stop" if stopped else "length")
        if self.constraint is not None:
            self.constraint.advance(token_id)
        if self.utf8 is not None:
            self.utf8_state = int(self.utf8.advance(np.array([self.utf8_state]), np.array([token_id]))[0])
        return Event(piece, token, place)


@dataclass(frozen=True)
class Chosen:
    """A token that a decoder chose for a text.

    Args:
        text: the text.
        token: the token; None where the prompt alone was read.
        prompt: the prompt's tokens with their log-probabilities, with the first token of a text that asks for them.
        error: why there is no token.
        finish: why the text ends with this token, or without one, where the decoder knows that.
    """

    text: Text
    token: Token | None = None
    prompt: tuple[Token, ...] | None = None
    error: Exception | None = None
    finish: Finish | None = None


def uniforms_of(texts: list[Text]) -> Any:
    """Return the next random number of each text, float32 `(texts,)`."""
    keys = np.stack([text.key for text in texts])
    drawn = np.array([len(text.token_ids) for text in texts], dtype=np.uint32)
    return randomness.uniforms(np, (keys[:, 0], keys[:, 1]), drawn)
