"""Beam search over any engine: prompts of unequal lengths, each at its own position, and groups that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import ConstraintState
from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.generation.batches import Batch, Continuation
from kerasgen.generation.engine import CandidateSession, Engine, Session, check_finite, highest_of, logits_of
from kerasgen.generation.logits_processors import Constraints
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers import arithmetic, beam_search
from kerasgen.samplers.lookahead import Beam


class _Search:
    """The texts of a batch's searches: a state for each group of beams, of the generated tokens alone.

    Args:
        engine: opens the session.
        batch: the prompts.
        spec: how to search.
        states: the states of each prompt's form, or None.
        session: one that stands at the prompts' ends, or None to open one.
        utf8: what keeps the texts valid UTF-8, or None where any token may follow.
    """

    def __init__(
        self,
        engine: Engine,
        batch: Batch,
        spec: Beam,
        states: Sequence[ConstraintState] | None,
        session: Session | None,
        utf8: Utf8Masks | None,
    ) -> None:
        self.spec = spec
        self.ends = engine.tokenizer.end_token_ids
        self.vocabulary_size = engine.tokenizer.vocabulary_size
        self.constraints = Constraints(spec, engine.tokenizer)
        self.session = session or engine.open(batch.prompts, batch.limits.tolist())
        self.size = spec.num_beams // spec.num_beam_groups
        self.most = batch.limits - batch.lengths
        self.live = np.arange(len(batch.places))
        empty = np.full((len(self.live), int(self.most.max())), engine.tokenizer.pad_token_id, dtype=np.int64)
        zeros = np.zeros((len(self.live), self.size))
        self.groups = [beam_search.begin(np, empty, zeros) for _ in range(spec.num_beam_groups)]
        self.done = np.zeros((len(self.live), spec.num_beam_groups), dtype=np.bool_)
        self.prompts = batch.padded(int(batch.limits.max()), engine.tokenizer.pad_token_id)
        self.lengths = batch.lengths
        self.states = None if states is None else [[state] * spec.num_beams for state in states]
        self.utf8: Utf8States | None = None
        if utf8 is not None:
            begun = np.array([utf8.state_after(prompt) for prompt in batch.prompts])
            self.utf8 = Utf8States(utf8, np.repeat(begun[:, None], spec.num_beams, axis=1))

    def run(self) -> list[beam_search.Beams]:
        """Return the groups' texts when every prompt's search is done."""
        generated = 0
        kept_beams = [beam_search.Beams(*(array.copy() for array in group)) for group in self.groups]
        while len(self.live):
            generated += 1
            logprobs, ids = self._next(generated)
            parents, tokens = self._step(logprobs, ids, generated)
            self._keep(kept_beams)
            going = np.asarray(~self.done[self.live].all(axis=1))
            self._leave(going)
            if len(self.live):
                self._advance(parents[going], tokens[going], generated)
        return kept_beams

    def _next(self, generated: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64] | None]:
        """Return log-probabilities `(live, num_beams, n)` and their ids, or None where they are of all ids."""
        spec, width = self.spec, self.spec.num_beams
        shape = (len(self.live), 1 if generated == 1 else width)
        utf8 = None if self.utf8 is None else self.utf8.of(np.s_[:, : shape[1]])
        if self.states is None and self.constraints.are_none:
            # One text can't have more candidates than these among the best, whatever earlier groups have taken.
            count = min(2 * self.size + (width if spec.num_beam_groups > 1 else 0), self.vocabulary_size)
            logprobs, ids = _candidates(self.session, count, spec.temperature, utf8)
            wide = np.broadcast_to(ids.astype(np.int64).reshape(*shape, -1), (shape[0], width, count))
            return np.broadcast_to(logprobs.astype(np.float64).reshape(*shape, -1), wide.shape), wide
        logits = self.session.logits()
        check_finite(logits)
        rows = np.repeat(self.live, shape[1])
        texts, lengths = self.prompts[rows], self.lengths[rows] + generated - 1
        if generated > 1:
            so_far = np.concatenate([group.token_ids for group in self.groups], axis=1)[:, :, : generated - 1]
            places = self.lengths[rows][:, None] + np.arange(generated - 1)
            np.put_along_axis(texts, places, so_far.reshape(len(rows), -1).astype(np.int32), axis=1)
        states = None if self.states is None else [state for row in self.states for state in row[: shape[1]]]
        masked = self.constraints.apply(logits, texts, lengths, states, utf8 if states is not None else None)
        masked_logprobs = arithmetic.log_softmax(np, masked)
        if utf8 is not None and states is None:
            # Texts are ranked by the model's own probabilities, so forbidden tokens are masked after the softmax. If no
            # token is left, as may happen under `bad_words`, the text ends.
            whole = np.where(utf8.allowed(), masked_logprobs, -np.inf)
            stuck = np.isneginf(whole).all(axis=1)
            whole[stuck, self.ends[0]] = masked_logprobs[stuck, self.ends[0]]
            masked_logprobs = whole
        masked_logprobs = masked_logprobs.reshape(*shape, -1)
        return np.broadcast_to(masked_logprobs, (shape[0], width, masked_logprobs.shape[-1])), None

    def _step(
        self, logprobs: npt.NDArray[np.float64], ids: npt.NDArray[np.int64] | None, generated: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Let each group choose in turn; return which beams go on, `(live, num_beams)`, and their new tokens."""
        spec, size = self.spec, self.size
        counts = np.full(len(self.live), generated)
        taken = np.zeros((len(self.live), self.vocabulary_size), dtype=np.float64)
        parents, tokens = [], []
        for number, group in enumerate(self.groups):
            own = slice(number * size, (number + 1) * size)
            penalties = None
            if number and spec.diversity_penalty:
                penalties = spec.diversity_penalty * (
                    np.broadcast_to(taken[:, None], (len(taken), size, self.vocabulary_size))
                    if ids is None
                    else np.take_along_axis(taken[:, None], ids[:, own].reshape(len(taken), 1, -1), axis=2).reshape(
                        ids[:, own].shape
                    )
                )
            active = ~self.done[self.live, number]
            after, chosen = beam_search.step(
                np,
                group,
                logprobs[:, own],
                active=active,
                index=generated - 1,
                generated=counts,
                stop_token_ids=self.ends,
                length_penalty=spec.length_penalty,
                candidate_ids=None if ids is None else ids[:, own],
                penalties=penalties,
            )
            parents.append(chosen + number * size)
            tokens.append(after.token_ids[:, :, generated - 1])
            np.add.at(taken, (np.arange(len(taken))[:, None], tokens[-1]), active[:, None] * 1.0)
            ended = active & beam_search.is_done(
                np,
                after,
                generated=counts,
                most=self.most[self.live],
                length_penalty=spec.length_penalty,
                num_return_sequences=min(spec.num_return_sequences, size),
                early_stopping=spec.early_stopping,
            )
            cut = active & ~ended & (self.most[self.live] == generated)
            self.groups[number] = beam_search.finish(
                np, after, cut=cut, generated=counts, length_penalty=spec.length_penalty
            )
            self.done[self.live, number] |= ended | cut
        return np.concatenate(parents, axis=1), np.concatenate(tokens, axis=1)

    def _keep(self, all_beams: list[beam_search.Beams]) -> None:
        """Write the live prompts' finished texts where all prompts' are kept."""
        for whole, group in zip(all_beams, self.groups, strict=True):
            whole.finished_ids[self.live] = group.finished_ids
            whole.finished_scores[self.live] = group.finished_scores

    def _leave(self, going: npt.NDArray[np.bool_]) -> None:
        self.live = self.live[going]
        self.groups = [beam_search.Beams(*(array[going] for array in group)) for group in self.groups]
        if self.states is not None:
            self.states = [row for row, goes in zip(self.states, going, strict=True) if goes]
        self.utf8 = None if self.utf8 is None else self.utf8.of(going)
        self._going = np.flatnonzero(going)

    def _advance(self, parents: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], generated: int) -> None:
        """Let the session follow: its rows are the prompts' at first, and each prompt's beams from then on."""
        width = self.spec.num_beams
        if generated == 1:
            self.session.select(np.repeat(self._going, width))
        else:
            self.session.select((self._going[:, None] * width + parents).reshape(-1))
        self.session.append(tokens.reshape(-1))
        if self.utf8 is not None:
            self.utf8 = self.utf8.of((np.arange(len(parents))[:, None], parents)).after(tokens)
        if self.states is not None:
            self.states = [
                [self._state(row[parent], token) for parent, token in zip(chosen, new, strict=True)]
                for row, chosen, new in zip(self.states, parents.tolist(), tokens.tolist(), strict=True)
            ]

    def _state(self, state: ConstraintState, token_id: int) -> ConstraintState:
        after = state.copy()
        allowed = after.allowed()
        # A beam without a text (its total is -inf) may hold any token, and its form goes nowhere.
        if token_id not in self.ends and (allowed is None or allowed[token_id]):
            after.advance(token_id)
        return after


def _candidates(
    session: Session, count: int, temperature: float, utf8: Utf8States | None
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.integer[Any]]]:
    """Return each row's likeliest next tokens; see `CandidateSession`."""
    if isinstance(session, CandidateSession):
        return session.candidates(count, temperature, utf8)
    logits = session.logits()
    check_finite(logits)
    allowed = None if utf8 is None else utf8.allowed()
    ids = highest_of(logits, count, allowed)
    if temperature != 1:
        logits = logits.astype(np.float64) / temperature
    own = logits_of(logits, ids, allowed).astype(np.float64)
    return own - arithmetic.log_partition(logits), ids


def search_beams(
    engine: Engine,
    batch: Batch,
    spec: Beam,
    states: Sequence[ConstraintState] | None = None,
    session: Session | None = None,
    utf8: Utf8Masks | None = None,
) -> list[list[Continuation]]:
    """Return each row's best texts by beam search, the best first; fewer than asked for if there are no more.

    Args:
        engine: opens the session.
        batch: the prompts.
        spec: how to search.
        states: the states of each row's form, or None.
        session: one that stands at the prompts' ends, or None to open one.
        utf8: what keeps the texts valid UTF-8, or None where any token may follow. They are ranked as without it.
    """
    groups = _Search(engine, batch, spec, states, session, utf8).run()
    ends = engine.tokenizer.end_token_ids
    scores: Any = np.concatenate([group.finished_scores for group in groups], axis=1)
    token_ids: Any = np.concatenate([group.finished_ids for group in groups], axis=1)
    best_texts = []
    for row, most in enumerate((batch.limits - batch.lengths).tolist()):
        order = np.argsort(-scores[row], kind="stable")[: spec.num_return_sequences]
        best_texts.append(
            [
                _continuation(token_ids[row, place, :most], float(scores[row, place]), ends)
                for place in order
                if scores[row, place] > float("-inf")
            ]
        )
    return best_texts


def _continuation(token_ids: npt.NDArray[np.int64], score: float, end_token_ids: tuple[int, ...]) -> Continuation:
    """Return a continuation of the ids up to the first end token, if they hold one."""
    ends = np.flatnonzero(np.isin(token_ids, end_token_ids))
    until_end = token_ids[: ends[0] + 1] if len(ends) else token_ids
    return Continuation(tuple(until_end.tolist()), score, bool(len(ends)))
