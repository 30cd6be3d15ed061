"""The parts that all beam searches of SavedModels share: before, in and after their loops.

Imports TensorFlow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from kerasgen.exporters.tensorflow import namespace as xp
from kerasgen.exporters.tensorflow.utf8 import Utf8Steps
from kerasgen.samplers import arithmetic, beam_search


class BeamChoice(NamedTuple):
    """How beams are searched: what both decoders' `search` takes, as `sample` takes a `Choice`.

    Args:
        num_beams: texts that are kept of each prompt.
        length_penalty: as in `kerasgen.samplers.Beam`.
        temperature: logits are divided by it.
        utf8: what keeps the texts valid UTF-8; what may follow is ranked as among all tokens.
        begun: int32 `(batch,)`, the states after the prompts, of `utf8`.
    """

    num_beams: int
    length_penalty: float
    temperature: Any
    utf8: Utf8Steps
    begun: Any

    def candidates(self, logits: Any, states: Any, *, vocabulary_size: int, ends: int) -> tuple[Any, Any]:
        """Return log-probabilities and ids of the tokens that can follow each beam among the best of its prompt.

        Args:
            logits: float32 `(batch * num_beams, vocabulary_size)`.
            states: int32 `(batch * num_beams,)`, of `utf8`.
            vocabulary_size: ids that can be chosen.
            ends: how many ids end a text.

        Returns:
            Float64 log-probabilities and int32 ids, `(batch, num_beams, count)`, the likeliest first.
        """
        logprobs = self.utf8.masked(arithmetic.log_softmax(xp, logits / self.temperature), states)
        # One beam can't contribute more candidates than these to the best.
        logprobs, ids = arithmetic.top(xp, logprobs, min((1 + ends) * self.num_beams, vocabulary_size))
        shape = (-1, self.num_beams, logprobs.shape[-1])
        return tf.reshape(tf.cast(logprobs, tf.float64), shape), tf.reshape(ids, shape)


def begin(batch: Any, *, num_beams: int, positions: int, pad: int) -> beam_search.Beams:
    """Return the beams of so many prompts before their first token, with room for so many positions."""
    zeros = tf.ensure_shape(tf.zeros((batch, num_beams), tf.float64), (None, num_beams))
    empty = tf.ensure_shape(tf.fill((batch, positions), pad), (None, positions))
    return beam_search.begin(xp, empty, zeros)


def shapes(*, num_beams: int, positions: int) -> beam_search.Beams:
    """Return the shapes of beams, as a loop takes them."""
    texts, scores = tf.TensorShape([None, num_beams, positions]), tf.TensorShape([None, num_beams])
    return beam_search.Beams(texts, scores, texts, scores)


def step(
    state: beam_search.Beams,
    best_candidates: tuple[Any, Any],
    *,
    active: Any,
    index: Any,
    generated: Any,
    limits: Any,
    end: Any,
    length_penalty: float,
) -> tuple[beam_search.Beams, Any, Any]:
    """Return the beams with one more token, the beam that each of them goes on, and which prompts are done.

    Args:
        state: before the token.
        best_candidates: what `BeamChoice.candidates` returned.
        active: bool `(batch,)`, the prompts whose beams change.
        index: where the token is written, as `kerasgen.samplers.beam_search.step` takes it.
        generated: int32 `(batch,)`, tokens of each beam, this one with them.
        limits: int32 `(batch,)`, tokens that a text may get.
        end: int32 `(ends,)`, the ids that end a text.
        length_penalty: as in `Beam`.
    """
    logprobs, ids = best_candidates
    after, parents = beam_search.step(
        xp,
        state,
        logprobs,
        active=active,
        index=index,
        generated=generated,
        stop_token_ids=tuple(tf.unstack(end)),
        length_penalty=length_penalty,
        candidate_ids=ids,
    )
    certain = beam_search.is_done(
        xp,
        after,
        generated=generated,
        most=limits,
        length_penalty=length_penalty,
        num_return_sequences=1,
        early_stopping=False,
    )
    return after, parents, tf.logical_and(active, certain)


def best(state: beam_search.Beams, *, done: Any, most: Any, length_penalty: float) -> Any:
    """Return the ids of each prompt's best text, int32 `(batch, most)`; texts that are not done ran to the limit."""
    limits = tf.fill(tf.shape(done), most)
    state = beam_search.finish(xp, state, cut=tf.logical_not(done), generated=limits, length_penalty=length_penalty)
    return state.finished_ids[:, 0, :most]
