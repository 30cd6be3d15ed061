"""The arithmetic of beam search for every executor: which beams go on, which are finished, and when to stop.

Source: Sutskever et al. 2014, section 3.2, with finished texts kept apart and scored once, as transformers does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kerasgen.samplers import arithmetic


class Beams(NamedTuple):
    """The texts of a search for each prompt: `num_beams` that go on, and at most as many that are finished.

    Args:
        token_ids: int `(batch, num_beams, length)`, texts that go on.
        totals: float `(batch, num_beams)`, their log-probabilities in nats; -inf where there is no text.
        finished_ids: int like `token_ids`, the best first; the end token stands in them.
        finished_scores: float like `totals`; -inf where there is no text.
    """

    token_ids: Any
    totals: Any
    finished_ids: Any
    finished_scores: Any


def begin(xp: Any, token_ids: Any, zeros: Any) -> Beams:
    """Return the state before the first step, in which each prompt has one text.

    Args:
        xp: the array namespace.
        token_ids: int `(batch, length)`, prompts.
        zeros: float `(batch, num_beams)`, in the type to keep totals in.
    """
    num_beams = zeros.shape[1]
    ids = xp.repeat(xp.expand_dims(token_ids, 1), num_beams, axis=1)
    others = xp.expand_dims(xp.arange(num_beams), 0) > 0
    nothing = xp.full_like(zeros, float("-inf"))
    return Beams(ids, xp.where(others, nothing, zeros), ids, nothing)


def score(xp: Any, totals: Any, generated: Any, length_penalty: float) -> Any:
    """Return `totals` divided by `generated ** length_penalty`; `generated` counts the end token."""
    return totals / xp.power(xp.add(xp.zeros_like(totals), generated), length_penalty)


def step(
    xp: Any,
    beams: Beams,
    log_probabilities: Any,
    *,
    active: Any,
    index: Any,
    generated: Any,
    stop_token_ids: tuple[int, ...],
    length_penalty: float,
    candidate_ids: Any = None,
    penalties: Any = None,
) -> tuple[Beams, Any]:
    """Return the texts one token longer, and which text each of them continues.

    Args:
        xp: the array namespace.
        beams: the texts.
        log_probabilities: float `(batch, num_beams, vocabulary_size)` in nats, of the token at `index`.
        active: bool `(batch,)`; the texts of other prompts stay as they are.
        index: int scalar, where the token is written.
        generated: int `(batch,)`, tokens generated, this one with them.
        stop_token_ids: ids that finish a text.
        length_penalty: see `Beam`.
        candidate_ids: int like `log_probabilities`, whose they are, where those are of some tokens only: of each text
            at least the `num_beams * 2` likeliest, the likeliest first. None where they are of the whole vocabulary.
        penalties: float like `log_probabilities`, taken off for this step's choice and not for the totals; or None.

    Returns:
        The texts, and int `(batch, num_beams)`, the places of those that they continue.
    """
    batch, num_beams, vocabulary_size = log_probabilities.shape
    # Enough candidates are left to go on, however many are finished: a beam has one candidate for each stop token.
    count = min(num_beams * (1 + len(stop_token_ids)), num_beams * vocabulary_size)
    totals = xp.reshape(xp.expand_dims(beams.totals, -1) + log_probabilities, (batch, num_beams * vocabulary_size))
    if penalties is None:
        totals, places = arithmetic.top(xp, totals, count)
    else:
        _, places = arithmetic.top(xp, totals - xp.reshape(penalties, totals.shape), count)
        totals = xp.take_along_axis(totals, places, axis=1)
    parents, tokens = places // vocabulary_size, places % vocabulary_size
    if candidate_ids is not None:
        tokens = xp.take_along_axis(xp.reshape(candidate_ids, (batch, num_beams * vocabulary_size)), places, axis=1)
    ended = tokens < 0
    for token_id in stop_token_ids:
        ended = xp.logical_or(ended, xp.equal(tokens, token_id))
    here = xp.equal(xp.arange(beams.token_ids.shape[-1]), index)
    ids = xp.where(here, xp.expand_dims(tokens, -1), _gather(xp, beams.token_ids, parents))

    may_end = xp.logical_and(ended, xp.expand_dims(xp.arange(count), 0) < num_beams)
    scores = score(xp, totals, xp.expand_dims(generated, -1), length_penalty)
    finished_ids, finished_scores = _add(xp, beams, ids, arithmetic.exclude(xp, scores, xp.logical_not(may_end)))

    going = arithmetic.exclude(xp, totals, ended)
    if penalties is None:
        live_totals, live = arithmetic.top(xp, going, num_beams)
    else:  # they stand in the order of the choice already, which is not that of their totals
        rank = xp.zeros_like(going) + xp.arange(count) + xp.where(xp.equal(going, float("-inf")), float(count), 0.0)
        _, live = arithmetic.top(xp, -rank, num_beams)
        live_totals = xp.take_along_axis(going, live, axis=1)
    ids, parents = _gather(xp, ids, live), xp.take_along_axis(parents, live, axis=1)
    goes_on = xp.expand_dims(active, -1)
    itself = xp.zeros_like(parents) + xp.expand_dims(xp.arange(num_beams), 0)
    after = Beams(
        xp.where(xp.expand_dims(goes_on, -1), ids, beams.token_ids),
        xp.where(goes_on, live_totals, beams.totals),
        xp.where(xp.expand_dims(goes_on, -1), finished_ids, beams.finished_ids),
        xp.where(goes_on, finished_scores, beams.finished_scores),
    )
    return after, xp.where(goes_on, parents, itself)


def is_done(
    xp: Any,
    beams: Beams,
    *,
    generated: Any,
    most: Any,
    length_penalty: float,
    num_return_sequences: int,
    early_stopping: bool,
) -> Any:
    """Return for which prompts no further step is needed, bool `(batch,)`.

    With `early_stopping` that is where `num_beams` texts are finished. Without, it is where even the best text that
    goes on could not reach the score of the finished text ranked `num_return_sequences`: its total can only fall, so
    its best score is the present total at the most favourable length. A search without texts that go on is done.

    Args:
        xp: the array namespace.
        beams: the texts after a step.
        generated: int `(batch,)`, tokens generated so far.
        most: int `(batch,)`, tokens that may be generated.
        length_penalty: see `Beam`.
        num_return_sequences: see `Beam`.
        early_stopping: see `Beam`.
    """
    # Dividing a negative total by more brings it nearer to 0; with a negative penalty, the shortest text is favoured.
    length = most if length_penalty > 0 else generated + 1
    bound = score(xp, xp.max(beams.totals, axis=-1), length, length_penalty)
    done = beams.finished_scores[:, num_return_sequences - 1] >= bound
    if early_stopping:
        done = xp.logical_or(done, beams.finished_scores[:, -1] > float("-inf"))
    return done


def finish(xp: Any, beams: Beams, *, cut: Any, generated: Any, length_penalty: float) -> Beams:
    """Return the texts with those that the length limit cut off among the finished, by the same score.

    Args:
        xp: the array namespace.
        beams: the texts.
        cut: bool `(batch,)`, which prompts reached the limit with texts that would go on.
        generated: int `(batch,)`, tokens generated.
        length_penalty: see `Beam`.
    """
    scores = score(xp, beams.totals, xp.expand_dims(generated, -1), length_penalty)
    scores = arithmetic.exclude(xp, scores, xp.logical_not(xp.expand_dims(cut, -1)))
    finished_ids, finished_scores = _add(xp, beams, beams.token_ids, scores)
    return Beams(beams.token_ids, beams.totals, finished_ids, finished_scores)


def _add(xp: Any, beams: Beams, token_ids: Any, scores: Any) -> tuple[Any, Any]:
    """The best of the finished texts and these; of equals, those that finished earlier."""
    num_beams = beams.finished_scores.shape[1]
    all_scores = xp.concatenate([beams.finished_scores, scores], axis=1)
    all_ids = xp.concatenate([beams.finished_ids, token_ids], axis=1)
    best, places = arithmetic.top(xp, all_scores, num_beams)
    return _gather(xp, all_ids, places), best


def _gather(xp: Any, texts: Any, places: Any) -> Any:
    """The texts at `places`: `(batch, n, length)` and `(batch, m)` to `(batch, m, length)`."""
    return xp.take_along_axis(texts, xp.expand_dims(places, -1), axis=1)
