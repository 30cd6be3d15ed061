"""The decoding loops that choose token by token, for every engine.

Each text stands at its own position, and one that is finished leaves its batch at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import ConstraintState
from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.batches import Batch
from kerasgen.generation.engine import (
    BlockSession,
    Engine,
    HiddenSession,
    Session,
    ShortlistSession,
    check_finite,
    highest_of,
    logits_of,
)
from kerasgen.generation.logits_processors import Constraints, allowed_of
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers import arithmetic, randomness
from kerasgen.samplers.base import TokenSampler, max_candidates_of
from kerasgen.samplers.lookahead import Contrastive
from kerasgen.tokens.base import Tokenizer

# Steps per block of a text: the first piece comes at once; later blocks cost one hand-over for that many tokens. A
# session whose steps are short beside the hand-over goes on doubling, up to its `most_steps`.
BLOCKS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Chosen:
    """One step's tokens.

    Args:
        rows: int `(n,)`, which rows of the batch were given a token.
        token_ids: int `(n,)`.
        logprobs: float `(n,)`, the model's own log-probability of each; NaN where nobody asked for it.
    """

    rows: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float64]


class Texts:
    """The texts of a batch on the host while they grow, and which of them still do.

    Args:
        batch: the prompts.
        tokenizer: the tokenizer whose end tokens end a text, and whose padding fills the rows.
        utf8: what keeps the texts valid UTF-8, or None where any token may follow.

    Attributes:
        proposed: tokens that were proposed for them and checked several at once.
        accepted: of these, tokens that they got.
    """

    def __init__(self, batch: Batch, tokenizer: Any, utf8: Utf8Masks | None = None) -> None:
        longest = int(batch.limits.max())
        self.token_ids = batch.padded(longest, tokenizer.pad_token_id)
        self.lengths = batch.lengths.copy()
        self.live = np.arange(len(batch.places))
        self.proposed = self.accepted = 0
        self._limits = batch.limits
        self._begun = batch.lengths
        self._end_token_ids = np.array(list(tokenizer.end_token_ids), dtype=np.int64)
        self._stopped = np.zeros(len(batch.places), dtype=np.bool_)
        self._utf8 = utf8
        self._states = np.array([0 if utf8 is None else utf8.state_after(prompt) for prompt in batch.prompts])

    @property
    def remaining(self) -> npt.NDArray[np.int64]:
        """Int `(live,)`, tokens that each live text may still get."""
        return np.asarray((self._limits - self.lengths)[self.live])

    @property
    def drawn(self) -> npt.NDArray[np.int64]:
        """Int `(live,)`, tokens that each live text has got."""
        return np.asarray((self.lengths - self._begun)[self.live])

    @property
    def utf8(self) -> Utf8States | None:
        """The UTF-8 state of each live text, or None where any token may follow."""
        return None if self._utf8 is None else Utf8States(self._utf8, self._states[self.live])

    def stop(self, row: int) -> None:
        """Let a row of the batch end with the tokens that it has."""
        self._stopped[row] = True

    def is_stopped(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of these rows were told to end."""
        return np.asarray(self._stopped[rows])

    def add(self, rows: npt.NDArray[np.int64], token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Write one token to each of these rows of the batch, and return which of them go on."""
        self.token_ids[rows, self.lengths[rows]] = token_ids
        self.lengths[rows] += 1
        if self._utf8 is not None:
            self._states[rows] = self._utf8.advance(self._states[rows], token_ids)
        is_end = (token_ids[:, None] == self._end_token_ids).any(axis=1)  # in a fifth of `np.isin`'s time
        return np.asarray(~is_end & (self.lengths[rows] < self._limits[rows]))

    def leave(self, session: Session, goes_on: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Take finished texts, and those told to stop, out of the session, and return which live ones went on."""
        goes_on = goes_on & ~self.is_stopped(self.live)
        self.live = self.live[goes_on]
        if len(self.live) and not goes_on.all():
            session.select(np.flatnonzero(goes_on))
        return goes_on


def sample(
    engine: Engine,
    batch: Batch,
    spec: TokenSampler,
    texts: Texts,
    states: Sequence[ConstraintState] | None = None,
    session: Session | None = None,
    *,
    logprobs: bool = True,
    in_pieces: bool = True,
) -> Iterator[Chosen]:
    """Yield each step's tokens, chosen from that step's logits, until every text is done.

    Args:
        engine: opens the session.
        batch: the prompts.
        spec: how to choose.
        texts: the texts of this batch; the caller may tell it to stop some.
        states: the states of each row's form, or None.
        session: one that stands at the prompts' ends, or None to open one.
        logprobs: whether the log-probabilities are wanted; without them, fewer logits may be needed.
        in_pieces: whether the first tokens are waited for; if not, an engine takes as many steps at once as it can.
    """
    session = session or engine.open(batch.prompts, batch.limits.tolist())
    if isinstance(session, BlockSession) and session.can_run(spec):
        if states is None:
            yield from _sample_blocks(batch, spec, texts, session, logprobs=logprobs, in_pieces=in_pieces)
        else:
            yield from _sample_formed(batch, spec, texts, states, session, engine.tokenizer)
        return
    constraints = Constraints(spec, engine.tokenizer)
    max_candidates = max_candidates_of(spec)
    if states is None and constraints.are_none and max_candidates is not None:
        count = min(max_candidates, engine.tokenizer.vocabulary_size)
        yield from _sample_among(batch, spec, texts, session, count, logprobs)
        return
    while len(texts.live):
        rows = texts.live
        logits = session.logits()
        check_finite(logits)
        live_states = None if states is None else [states[row] for row in rows.tolist()]
        masked = constraints.apply(logits, texts.token_ids[rows], texts.lengths[rows], live_states, texts.utf8)
        token_ids = np.asarray(spec.choose(np, masked, _uniforms(batch, spec, texts)), dtype=np.int64)
        goes_on = texts.add(rows, token_ids)
        yield Chosen(rows, token_ids, _logprobs(logits, token_ids))
        went_on = texts.leave(session, goes_on)
        if live_states is not None:
            for state, token_id, goes in zip(live_states, token_ids.tolist(), went_on, strict=True):
                if goes:
                    state.advance(token_id)
        if len(texts.live):
            session.append(token_ids[went_on])


def _sample_among(
    batch: Batch, spec: TokenSampler, texts: Texts, session: Any, count: int, logprobs: bool
) -> Iterator[Chosen]:
    """Sample where one of the `count` likeliest tokens is chosen, and only a temperature changes logits."""
    is_short = isinstance(session, ShortlistSession) and not logprobs  # a protocol takes long to check
    while len(texts.live):
        rows, utf8 = texts.live, texts.utf8
        allowed = None if utf8 is None else utf8.allowed()
        if is_short:
            some, ids = session.shortlist(count, allowed)
            check_finite(some)
        else:
            logits = session.logits()
            check_finite(logits)
            ids = np.sort(highest_of(logits, count, allowed), axis=-1)
            some = logits_of(logits, ids, allowed)
        scaled = np.asarray(some, dtype=np.float64) / spec.temperature
        chosen = np.asarray(spec.choose(np, scaled, _uniforms(batch, spec, texts)), dtype=np.int64)
        token_ids = ids[np.arange(len(rows)), chosen].astype(np.int64)
        goes_on = texts.add(rows, token_ids)
        yield Chosen(rows, token_ids, _logprobs(logits, token_ids) if logprobs else np.full(len(rows), np.nan))
        went_on = texts.leave(session, goes_on)
        if len(texts.live):
            session.append(token_ids[went_on])


def _uniforms(batch: Batch, spec: TokenSampler, texts: Texts) -> npt.NDArray[np.float64]:
    """Return the random numbers of this step's live texts; zeros for a sampler that draws none."""
    if not spec.draws:
        return np.zeros(len(texts.live))
    keys = batch.keys[texts.live]
    drawn = randomness.uniforms(np, (keys[:, 0], keys[:, 1]), texts.drawn.astype(np.uint32))
    return np.asarray(drawn, dtype=np.float64)


def _sample_blocks(
    batch: Batch, spec: TokenSampler, texts: Texts, session: Any, *, logprobs: bool, in_pieces: bool
) -> Iterator[Chosen]:
    """Sample several steps at a time inside the engine; drop tokens after a row's end."""
    turn = 0
    while len(texts.live):
        most = getattr(session, "most_steps", BLOCKS[-1])
        steps = min(2**turn if in_pieces else most, most, int(texts.remaining.max()))
        turn += 1
        rows = texts.live
        block = session.run(
            steps, spec, batch.keys[rows], texts.drawn, texts.remaining, None, texts.utf8, logprobs=logprobs
        )
        goes_on = np.ones(len(rows), dtype=np.bool_)
        for step in range(block.steps):
            places = np.flatnonzero(goes_on)
            if not len(places):
                break
            token_ids = block.token_ids[step, places].astype(np.int64)
            goes_on[places] = texts.add(rows[places], token_ids)
            yield Chosen(rows[places], token_ids, block.logprobs[step, places].astype(np.float64))
            goes_on &= ~texts.is_stopped(rows)
        texts.leave(session, goes_on)


def _sample_formed(
    batch: Batch, spec: TokenSampler, texts: Texts, states: Sequence[ConstraintState], session: Any, tokenizer: Any
) -> Iterator[Chosen]:
    """Sample a step at a time: the host masks by the constraints, and the engine chooses among the allowed tokens."""
    while len(texts.live):
        rows = texts.live
        live_states = [states[row] for row in rows.tolist()]
        allowed = allowed_of(live_states, tokenizer.vocabulary_size, tokenizer.end_token_id, texts.utf8)
        block = session.run(1, spec, batch.keys[rows], texts.drawn, texts.remaining, allowed)
        token_ids = block.token_ids[0].astype(np.int64)
        goes_on = texts.add(rows, token_ids)
        yield Chosen(rows, token_ids, block.logprobs[0].astype(np.float64))
        went_on = texts.leave(session, goes_on)
        for row, token_id, goes in zip(rows.tolist(), token_ids.tolist(), went_on.tolist(), strict=True):
            if goes:
                states[row].advance(token_id)


def search_contrastively(engine: Engine, batch: Batch, spec: Contrastive, texts: Texts) -> Iterator[Chosen]:
    """Return each step's tokens by contrastive search: the model reads every candidate before one is taken.

    The prompts are opened at the call, for only a session says whether it shows hidden states.

    Raises:
        GenerateArgumentError: the engine doesn't show hidden states.
    """
    session = engine.open(batch.prompts, batch.limits.tolist())
    if not isinstance(session, HiddenSession):
        raise GenerateArgumentError(
            f"Contrastive search needs a model that decodes with a cache and shows its hidden states; {engine.name} "
            "doesn't. Use another sampler."
        )
    return _search_contrastively(engine.tokenizer, batch, spec, texts, session)


def _search_contrastively(
    tokenizer: Tokenizer, batch: Batch, spec: Contrastive, texts: Texts, session: Any
) -> Iterator[Chosen]:
    """Search contrastively in a session that shows hidden states."""
    constraints = Constraints(spec, tokenizer)
    count = min(spec.k, tokenizer.vocabulary_size)
    prompt_hidden = session.prompt_hidden()
    width = max(int(batch.limits.max()), prompt_hidden.shape[1])
    hidden = np.zeros((len(batch.places), width, prompt_hidden.shape[2]), dtype=np.float32)
    hidden[:, : prompt_hidden.shape[1]] = prompt_hidden
    logits = session.logits()
    while len(texts.live):
        rows, lengths = texts.live, texts.lengths[texts.live]
        check_finite(logits)
        masked = constraints.apply(logits, texts.token_ids[rows], lengths, utf8=texts.utf8)
        probabilities = arithmetic.softmax(np, masked)
        probabilities, candidates = arithmetic.top(np, probabilities, count)

        session.select(np.repeat(np.arange(len(rows)), count))
        session.append(candidates.reshape(-1).astype(np.int64))
        candidate_logits = session.logits()
        states = np.asarray(session.hidden(), dtype=np.float32)
        scores = arithmetic.contrastive_score(
            np,
            probabilities,
            states.reshape(len(rows), count, -1),
            hidden[rows],
            np.arange(width) < lengths[:, None],
            spec.alpha,
        )
        best = arithmetic.highest(np, scores)
        taken = np.arange(len(rows)) * count + best
        token_ids = candidates[np.arange(len(rows)), best].astype(np.int64)
        hidden[rows, lengths] = states[taken]
        goes_on = texts.add(rows, token_ids)
        yield Chosen(rows, token_ids, _logprobs(logits, token_ids))
        goes_on &= ~texts.is_stopped(rows)
        texts.live = rows[goes_on]
        session.select(taken[goes_on])
        logits = candidate_logits[taken[goes_on]]


def _logprobs(logits: npt.NDArray[Any], token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    own = logits[np.arange(len(token_ids)), token_ids].astype(np.float64)
    return np.asarray(own - arithmetic.log_partition(logits)[:, 0], dtype=np.float64)
