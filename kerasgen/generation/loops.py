"""Logits become tokens: the decoding loops, one for each way to choose.

Texts of one batch stand at one index, for a KerasHub cache is written at one index for all rows. A loop starts at the
shortest text and steps over the longer prompts' own tokens; where short texts are finished, it goes on from the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.batches import Batch, Continuation
from kerasgen.generation.constraints import Constraints
from kerasgen.generation.passes import Session, cache_length
from kerasgen.models.base import LanguageModel
from kerasgen.samplers import arithmetic, beams
from kerasgen.samplers.base import TokenSampler
from kerasgen.samplers.randomness import uniforms
from kerasgen.samplers.searching import Beam, Contrastive


@dataclass(frozen=True)
class Chosen:
    """One step's tokens.

    Args:
        rows: int `(n,)`, which rows of the batch were given a token.
        token_ids: int `(n,)`.
        nats: float `(n,)`, the model's own log-probability of each.
    """

    rows: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int64]
    nats: npt.NDArray[np.float64]


class _Progress:
    """How far each text of a batch has come."""

    def __init__(self, batch: Batch, model: LanguageModel) -> None:
        self.lengths = batch.lengths.copy()
        self.done = np.zeros(len(batch.places), dtype=np.bool_)
        self._limits = batch.limits
        self._end_token_id = model.tokenizer.end_token_id

    def next_rows(self) -> tuple[int, npt.NDArray[np.int64]]:
        """Return the index of the next token, and the rows that get one there."""
        index = int(self.lengths[~self.done].min())
        return index, np.flatnonzero(~self.done & (self.lengths == index))

    def add(self, rows: npt.NDArray[np.int64], token_ids: npt.NDArray[np.int64]) -> None:
        self.lengths[rows] += 1
        self.done[rows] = (token_ids == self._end_token_id) | (self.lengths[rows] == self._limits[rows])


def sample(model: LanguageModel, batch: Batch, spec: TokenSampler, seed: int) -> Iterator[Chosen]:
    """Yield each step's tokens, chosen from that step's logits, until every text is done."""
    session = _open(model, batch)
    constraints = Constraints(spec, model)
    progress = _Progress(batch, model)
    draws = [
        uniforms(seed, stream, int(most))
        for stream, most in zip(batch.streams, batch.limits - batch.lengths, strict=True)
    ]
    while not progress.done.all():
        index, rows = progress.next_rows()
        logits = session.logits(index)[rows]
        drawn = np.array([draws[row][index - batch.lengths[row]] for row in rows])
        token_ids = spec.choose(np, constraints.apply(logits, session.token_ids[rows], index), drawn)
        session.token_ids[rows, index] = token_ids
        progress.add(rows, token_ids)
        yield Chosen(rows, token_ids, _nats(logits, token_ids))


def search_contrastively(model: LanguageModel, batch: Batch, spec: Contrastive) -> Iterator[Chosen]:
    """Yield each step's tokens by contrastive search: the model reads every candidate before one is taken.

    Raises:
        GenerateArgumentError: the model doesn't decode with a cache, so its hidden states are not at hand.
    """
    session = _open(model, batch)
    if not session.is_cached:
        raise GenerateArgumentError(
            f"Contrastive search needs a model that decodes with a cache; {type(model.causal_lm).__name__} doesn't. "
            "Use another sampler."
        )
    constraints = Constraints(spec, model)
    progress = _Progress(batch, model)
    count = min(spec.k, model.tokenizer.vocabulary_size)
    every_row = np.arange(len(batch.places))
    hidden = session.prompt_hidden.copy()  # (rows, length, hidden_dim)
    logits, logits_index = np.empty((0, 0)), -1
    while not progress.done.all():
        index, rows = progress.next_rows()
        if logits_index != index:  # at the start, and where the short texts are finished
            logits = session.logits(index)
        probabilities = arithmetic.softmax(np, constraints.apply(logits, session.token_ids, index))
        probabilities, candidates = arithmetic.top(np, probabilities, count)
        given = session.token_ids[:, index].copy()
        is_chosen = np.isin(every_row, rows)
        candidates = np.where(is_chosen[:, None], candidates, given[:, None])

        session.select(np.repeat(every_row, count))
        session.token_ids[:, index] = candidates.reshape(-1)
        candidate_logits = session.logits(index + 1)
        states = np.asarray(session.hidden, dtype=np.float32)
        scores = arithmetic.contrastive_score(
            np,
            probabilities,
            states.reshape(len(every_row), count, -1),
            hidden,
            np.broadcast_to(np.arange(hidden.shape[1]) < index, hidden.shape[:2]),
            spec.alpha,
        )
        best = arithmetic.highest(np, scores)
        taken = every_row * count + best
        session.select(taken)
        hidden[:, index] = states[taken]
        token_ids = candidates[every_row, best][rows]
        yield Chosen(rows, token_ids, _nats(logits[rows], token_ids))
        logits, logits_index = candidate_logits[taken], index + 1
        progress.add(rows, token_ids)


def search_beams(model: LanguageModel, batch: Batch, spec: Beam) -> list[list[Continuation]]:
    """Return each row's best texts by beam search, the best first; fewer than asked for if there are no more."""
    rows, count = len(batch.places), spec.num_beams
    end = model.tokenizer.end_token_id
    session = _open(model, batch)
    constraints = Constraints(spec, model)
    state = beams.begin(np, session.token_ids, np.zeros((rows, count)))
    session.select(np.repeat(np.arange(rows), count))
    lengths, done = batch.lengths.copy(), np.zeros(rows, dtype=np.bool_)
    most = batch.limits - batch.lengths
    while not done.all():
        index = int(lengths[~done].min())
        active = ~done & (lengths == index)
        logits = constraints.apply(session.logits(index), session.token_ids, index)
        nats = arithmetic.log_softmax(np, logits).reshape(rows, count, -1)
        generated = lengths - batch.lengths + 1
        state, parents = beams.step(
            np,
            state,
            nats,
            active=active,
            index=index,
            generated=generated,
            stop_token_ids=(end,),
            length_penalty=spec.length_penalty,
        )
        session.select((np.arange(rows)[:, None] * count + parents).reshape(-1))
        session.token_ids = state.token_ids.reshape(rows * count, -1).astype(np.int32)
        lengths[active] += 1
        ended = active & beams.is_done(
            np,
            state,
            generated=generated,
            most=most,
            length_penalty=spec.length_penalty,
            num_return_sequences=spec.num_return_sequences,
            early_stopping=spec.early_stopping,
        )
        cut = active & ~ended & (lengths == batch.limits)
        state = beams.finish(np, state, cut=cut, generated=generated, length_penalty=spec.length_penalty)
        done |= ended | cut
    return [
        [
            _continuation(state.finished_ids[row, place, batch.lengths[row] : batch.limits[row]], score, end)
            for place, score in enumerate(state.finished_scores[row, : spec.num_return_sequences].tolist())
            if score > float("-inf")
        ]
        for row in range(rows)
    ]


def _continuation(token_ids: npt.NDArray[np.int64], score: float, end_token_id: int) -> Continuation:
    """The ids up to the end token, if they hold one."""
    ends = np.flatnonzero(token_ids == end_token_id)
    kept = token_ids[: ends[0] + 1] if len(ends) else token_ids
    return Continuation(tuple(kept.tolist()), score, bool(len(ends)))


def _open(model: LanguageModel, batch: Batch) -> Session:
    length = cache_length(batch.token_ids.shape[1], model.max_sequence_length)
    return Session(model, batch.padded(length, model.tokenizer.pad_token_id))


def _nats(logits: npt.NDArray[np.float64], token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    nats = arithmetic.log_softmax(np, logits)[np.arange(len(token_ids)), token_ids]
    return np.asarray(nats, dtype=np.float64)
