"""The engine contract: an engine opens sessions, and a session gives logits for texts that grow a token at a time.

The loops of this package know these protocols and nothing else, so a Keras model, a compiled graph and an exported
artefact are decoded by the same lines. Imports the standard library and NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from kerasgen.errors import GenerationError
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers import selection
from kerasgen.tokens.base import Tokenizer

if TYPE_CHECKING:
    from kerasgen.constraints.valid_utf8 import Utf8Masks
    from kerasgen.generation.batches import Batch


class TextSpace(Protocol):
    """The tokenizer and positions that a call's limits are checked against; models and engines have both."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the ids that are generated."""

    @property
    def max_sequence_length(self) -> int | None:
        """Positions that a text may have, its start token with it, or None where there is no limit."""


class Session(Protocol):
    """A batch of texts during generation. Each row has its own length.

    A session begins with the prompts. Its state changes by `append` and `select` alone.
    """

    def logits(self) -> npt.NDArray[np.floating[Any]]:
        """Return the logits of each row's next token, float `(rows, vocabulary_size)`, of the tokenizer's ids.

        Asked twice without a change between, it answers the same.
        """

    def append(self, token_ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add one token to each row, int `(rows,)`."""

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Go on with these rows, in this order; a row may come several times or not at all."""


@runtime_checkable
class HiddenSession(Protocol):
    """A session that shows hidden states, as contrastive search asks for."""

    def prompt_hidden(self) -> npt.NDArray[np.float32]:
        """Return the last hidden states of the prompts as they were opened, `(rows, longest prompt or more, dim)`."""

    def hidden(self) -> npt.NDArray[np.float32]:
        """Return the last hidden state of each row's last token, `(rows, dim)`; ask after `logits`."""


@runtime_checkable
class CandidateSession(Protocol):
    """Session that returns the likeliest next tokens, so that the logits of a whole vocabulary stay in the executor."""

    def candidates(
        self, count: int, temperature: float, utf8: Utf8States | None = None
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.integer[Any]]]:
        """Return each row's `count` likeliest next tokens, the likeliest first; of equals, the lower id first.

        Args:
            count: at least 1 and at most the vocabulary's size.
            temperature: at least 1e-6; logits are divided by it.
            utf8: where each row stands in a character, or None where any token may follow. A token that may not has
                -inf; the others have the log-probabilities that they have among all.

        Returns:
            Log-probabilities in nats and ids, `(rows, count)`.

        Raises:
            GenerationError: the logits are not finite.
        """


@runtime_checkable
class ShortlistSession(Protocol):
    """A session that finds the likeliest next tokens without computing every token's logit."""

    def shortlist(
        self, count: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.integer[Any]]]:
        """Return logits of some next tokens of each row, the `count` likeliest among them, and their ids.

        Args:
            count: at least 1 and at most the vocabulary's size; of equals, the lower ids are among them.
            allowed: bool `(rows, vocabulary_size)`, which tokens may be chosen, or None for all. The likeliest are
                those of the allowed; the logit of another is -inf.

        Returns:
            Float and int `(rows, n)`, `n` at least `count`; the ids of a row ascend.
        """


@dataclass(frozen=True)
class Block:
    """Tokens of several decoding steps.

    Args:
        token_ids: int `(steps, rows)`; what stands after a row's last token means nothing.
        logprobs: float `(steps, rows)`, the model's own log-probability of each.
        steps: how many steps were taken; fewer than asked for where every row ended.
    """

    token_ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    steps: int


@runtime_checkable
class BlockSession(Protocol):
    """A session that takes several steps at once, with the sampler inside its graph."""

    def can_run(self, spec: Any) -> bool:
        """Return whether `run` chooses as this `TokenSampler` does, its shared settings with it."""

    def run(
        self,
        steps: int,
        spec: Any,
        keys: npt.NDArray[np.uint32],
        drawn: npt.NDArray[np.int64],
        remaining: npt.NDArray[np.int64],
        allowed: npt.NDArray[np.bool_] | None = None,
        utf8: Utf8States | None = None,
        *,
        logprobs: bool = True,
    ) -> Block:
        """Take up to `steps` steps; each row's text then holds its new tokens, and a row that ended stands still.

        Args:
            steps: at least 1.
            spec: the sampler; its numbers are inputs of the graph.
            keys: uint32 `(rows, 2)`, of each row's random numbers.
            drawn: int `(rows,)`, how many numbers each row has used.
            remaining: int `(rows,)`, tokens each row may still get.
            allowed: bool `(rows, vocabulary_size)`, which tokens may be chosen, at least one in each row, or None for
                all; with it, one step at a time.
            utf8: where each row stands in a character, or None where any token may follow.
            logprobs: whether the log-probabilities are wanted; without, they may be NaN.

        Raises:
            GenerationError: the logits are not finite.
        """


@runtime_checkable
class CheckingSession(BlockSession, Session, Protocol):
    """A session that checks several proposed tokens of its one text in one pass of the model."""

    @property
    def is_exact(self) -> bool:
        """Whether `run` goes on with what it would have without proposals, to the bit."""

    def settle(self, most: int) -> None:
        """Make it exact by reading token by token what was read several tokens at once, if that is `most` or fewer."""

    def can_check(self, spec: Any) -> bool:
        """Return whether `check` chooses as this `TokenSampler` does, for this session's text."""

    def check(
        self,
        proposal: Sequence[int],
        spec: Any,
        keys: npt.NDArray[np.uint32],
        drawn: int,
        remaining: int,
        utf8: Utf8States | None = None,
    ) -> Block:
        """Take at least one step, and one more after each proposed token that was chosen.

        The tokens are those that `run` chooses, whatever is proposed.

        Args:
            proposal: ids of the tokens that may come next, fewer than `remaining`.
            spec: the sampler.
            keys: uint32 `(1, 2)`, of the text's random numbers.
            drawn: how many numbers it has used.
            remaining: tokens that it may still get, at least 1.
            utf8: where it stands in a character, or None where any token may follow.

        Raises:
            GenerationError: the logits are not finite.
        """


class Engine(TextSpace, Protocol):
    """Opens sessions for one model or artefact.

    Those of kerasgen may be asked from several threads; what a session changes is its own.
    """

    @property
    def name(self) -> str:
        """The engine's name in the `engine` argument, such as `"keras"`."""

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> Session:
        """Return a session whose rows are these texts.

        Args:
            prompts: ids of each text, its start token with them; at least one each.
            limits: how many tokens each may have in all; more than its prompt's.
        """


@runtime_checkable
class SizingEngine(Engine, Protocol):
    """An engine that knows how many texts its device decodes at once."""

    def texts_at_once(self, limit: int) -> int:
        """Return how many texts of at most `limit` tokens a batch has where a call says nothing."""


@runtime_checkable
class SharingEngine(Engine, Protocol):
    """An engine that reads once what many prompts begin with, whatever their batches."""

    def sharing(self, prompts: Sequence[Sequence[int]]) -> AbstractContextManager[None]:
        """Return a context in which beginnings that several of these prompts share are not read again."""


@runtime_checkable
class QueueingEngine(Engine, Protocol):
    """An engine in which a text takes the place of one that ended, so that no step waits for a batch's longest text."""

    def can_queue(self, batch: Batch, spec: Any, slots: int) -> bool:
        """Return whether `queue` decodes these texts, chooses as this sampler does, and is worth it.

        Args:
            batch: all texts of a call.
            spec: the sampler.
            slots: texts at once.
        """

    def queue(
        self, batch: Batch, spec: Any, utf8: Utf8Masks | None, slots: int, *, logprobs: bool
    ) -> Iterator[tuple[int, Block]]:
        """Yield each text's row in the batch and its new tokens, a block of one row, as texts end.

        Args:
            batch: all texts of a call.
            spec: the sampler.
            utf8: what keeps the texts valid UTF-8, or None where any token may follow.
            slots: texts at once.
            logprobs: whether the log-probabilities are wanted; without, they may be NaN.

        Raises:
            GenerationError: the logits are not finite.
        """


def highest_of(
    logits: npt.NDArray[Any], count: int, allowed: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.integer[Any]]:
    """Return the ids of each row's `count` likeliest tokens, of those allowed if not all are; the likeliest first."""
    ids: npt.NDArray[np.integer[Any]] = selection.highest_places(np, logits, count)
    if allowed is not None:
        # Mostly the likeliest tokens are allowed, and then the whole vocabulary needs no mask.
        wrong = ~allowed[_rows(ids), ids].all(axis=-1)
        if wrong.any():
            masked = np.where(allowed[wrong], logits[wrong], -np.inf)
            ids[wrong] = selection.highest_places(np, masked, count)
    return ids


def logits_of(
    logits: npt.NDArray[Any], ids: npt.NDArray[np.integer[Any]], allowed: npt.NDArray[np.bool_] | None
) -> npt.NDArray[Any]:
    """Return the logits of these ids `(rows, n)`; -inf for those that are not allowed."""
    rows = _rows(ids)
    some = logits[rows, ids]
    return some if allowed is None else np.where(allowed[rows, ids], some, -np.inf)


def _rows(ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.intp]:
    """Return what indexes ids' rows beside them, in a third of the time of `np.take_along_axis`; int `(rows, 1)`."""
    return np.arange(len(ids))[:, None]


def check_finite(logits: npt.NDArray[Any]) -> None:
    """Raise unless a text could be drawn from these logits; -inf excludes a token and is fine.

    Raises:
        GenerationError: NaN or +inf is among them.
    """
    # One pass suffices: the maximum is NaN if any value is, and +inf if one is.
    if not (logits.max(axis=-1) < np.inf).all():
        raise not_finite()


def not_finite() -> GenerationError:
    """Return the error of a model whose logits are NaN or +inf."""
    return GenerationError(
        "The model's logits are not finite. Its weights may hold NaN, from a training that diverged, or overflow its "
        "precision; load earlier weights or use float32."
    )
