"""Turns logits into a choice of token: the arithmetic of every sampler, written once for every executor.

Each function takes an array namespace `xp` first: the module `numpy` on a host, in whatever float type the arrays have,
or `keras.ops` (or what has its names) inside a compiled graph, in float32. Only functions that both have are used;
`top`, `count_ids` and `selection` hide where they differ. Shapes must be known when a graph is traced; values need not
be: `k`, `p`, the temperature and the penalty may be Python numbers, scalars of the executor, or one a row, `(rows, 1)`.
A number that changes nothing, such as a penalty of 1, costs nothing if it is Python's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kerasgen import deprecations
from kerasgen.samplers import selection

if not TYPE_CHECKING:
    __getattr__ = deprecations.moved(__name__, {"keep_highest": "kerasgen.samplers.selection:keep_highest"})


def top(xp: Any, values: Any, count: int) -> tuple[Any, Any]:
    """Return the `count` highest values of each row and their places, highest first; of equals, the lower place first.

    Args:
        xp: the array namespace.
        values: float `(rows, n)`, `n` at least `count`.
        count: how many.

    Returns:
        Float and int `(rows, count)`.
    """
    if hasattr(xp, "top_k"):
        highest, places = xp.top_k(values, k=count, sorted=True)
        return highest, places
    places = selection.highest_places(xp, values, count)
    return xp.take_along_axis(values, places, axis=-1), places


def count_ids(xp: Any, token_ids: Any, counted: Any, vocabulary_size: int) -> Any:
    """Return how often each id stands in a row where `counted` is true.

    Args:
        xp: the array namespace.
        token_ids: int `(rows, n)`; below `vocabulary_size` where `counted`.
        counted: bool `(rows, n)`.
        vocabulary_size: how many ids there are.

    Returns:
        Float `(rows, vocabulary_size)`.
    """
    rows = token_ids.shape[0]
    ids = xp.where(counted, token_ids, 0)
    ones = xp.where(counted, 1.0, 0.0)
    if hasattr(xp, "scatter"):
        row_of = xp.zeros_like(ids) + xp.expand_dims(xp.cast(xp.arange(rows), ids.dtype), -1)
        places = xp.stack([xp.reshape(row_of, (-1,)), xp.reshape(ids, (-1,))], axis=-1)
        return xp.scatter(places, xp.reshape(ones, (-1,)), (rows, vocabulary_size))
    counts = xp.zeros((rows, vocabulary_size))
    xp.add.at(counts, (xp.arange(rows)[:, None], ids), ones)
    return counts


def softmax(xp: Any, logits: Any) -> Any:
    """Return probabilities of `(rows, n)` logits; -inf becomes exactly 0."""
    powers = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def log_softmax(xp: Any, logits: Any) -> Any:
    """Return log-probabilities in nats of `(rows, n)` logits; -inf stays -inf."""
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def log_partition(logits: Any) -> Any:
    """Return the logarithm of the sum of the exponentials of each row, float64 `(rows, 1)`, on a host.

    The exponentials are computed in the type of the logits and summed in float64; -inf counts as 0.

    Args:
        logits: a NumPy array, float `(rows, n)`, each row with one finite at least.
    """
    import numpy as np

    most = logits.max(axis=-1, keepdims=True)
    powers = np.exp(logits - most)
    return np.log(powers.sum(axis=-1, keepdims=True, dtype=np.float64)) + most.astype(np.float64)


def exclude(xp: Any, logits: Any, excluded: Any) -> Any:
    """Return `logits` with -inf where the bool array `excluded` is true."""
    return xp.where(excluded, float("-inf"), logits)


def apply_repetition_penalty(xp: Any, logits: Any, token_ids: Any, counted: Any, penalty: Any) -> Any:
    """Return logits with those of repeated tokens divided by `penalty` where positive, multiplied where not.

    Args:
        xp: the array namespace.
        logits: float `(rows, vocabulary_size)`.
        token_ids: int `(rows, n)`, the text so far.
        counted: bool `(rows, n)`, which of its positions count.
        penalty: above 0; 1 changes nothing.

    Source: Keskar et al. 2019, section 4.1, with the sign rule that transformers added.
    """
    if isinstance(penalty, (int, float)) and penalty == 1:
        return logits
    return penalize(xp, logits, count_ids(xp, token_ids, counted, logits.shape[-1]) > 0, penalty)


def penalize(xp: Any, logits: Any, seen: Any, penalty: Any) -> Any:
    """Return the logits with those penalized that a text holds, by `seen`, bool `(rows, vocabulary_size)`."""
    return xp.where(seen, xp.where(logits > 0, logits / penalty, logits * penalty), logits)


def ngram_mask(xp: Any, token_ids: Any, counted: Any, index: Any, size: int, vocabulary_size: int) -> Any:
    """Return which tokens at position `index` would complete an n-gram that the text holds already.

    Args:
        xp: the array namespace.
        token_ids: int `(rows, n)`, the text in the positions before `index`.
        counted: bool `(rows, n)`, which positions are text; none from `index` on.
        index: int scalar, or int `(rows, 1)`.
        size: tokens in an n-gram, at least 1.
        vocabulary_size: how many ids there are.

    Returns:
        Bool `(rows, vocabulary_size)`.

    Source: Paulus et al. 2017, section 2.5.
    """
    windows = token_ids.shape[1] - size + 1
    if windows < 1:
        return xp.zeros((token_ids.shape[0], vocabulary_size)) > 0
    repeated = counted[:, size - 1 :]
    index = xp.zeros_like(token_ids[:, :1]) + index
    for step in range(size - 1):
        # The text's last size - 1 tokens; clipped, because the text may be shorter.
        place = xp.maximum(index - size + 1 + step, 0)
        last = xp.take_along_axis(token_ids, place, axis=1)
        last_counted = xp.take_along_axis(xp.where(counted, 1, 0), place, axis=1) > 0
        same = xp.equal(token_ids[:, step : step + windows], last)
        both = xp.logical_and(counted[:, step : step + windows], last_counted)
        repeated = xp.logical_and(repeated, xp.logical_and(same, both))
    repeated = xp.logical_and(repeated, index >= size - 1)
    return count_ids(xp, token_ids[:, size - 1 :], repeated, vocabulary_size) > 0


def leave_a_choice(xp: Any, logits: Any, before: Any, end_token_id: int | None) -> Any:
    """Return `logits` where a row has any that is not -inf, and a row with one choice where it has none.

    Args:
        xp: the array namespace.
        logits: float `(rows, vocabulary_size)`.
        before: the same before anything was excluded.
        end_token_id: the one choice; without one, such a row gets its logits from `before`.
    """
    some = xp.max(logits, axis=-1, keepdims=True) > float("-inf")
    if end_token_id is None:
        return xp.where(some, logits, before)
    others = xp.not_equal(xp.expand_dims(xp.arange(logits.shape[-1]), 0), end_token_id)
    return xp.where(some, logits, exclude(xp, xp.zeros_like(logits), others))


def top_k_mask(xp: Any, logits: Any, k: Any) -> Any:
    """Return `(rows, vocabulary_size)` logits with -inf for all but the `k` highest of each row, lower ids first."""
    size = logits.shape[-1]
    if isinstance(k, int) and k >= size:
        return logits
    counts = xp.zeros_like(logits[:, :1], dtype="int32") + xp.minimum(k, size)
    return exclude(xp, logits, xp.logical_not(selection.keep_highest(xp, logits, counts)))


def top_p_mask(xp: Any, logits: Any, p: Any) -> Any:
    """Return logits with -inf for all but the fewest most likely tokens whose probabilities sum to `p` or more.

    Args:
        xp: the array namespace.
        logits: float `(rows, vocabulary_size)`.
        p: above 0 and at most 1; 1 keeps all that may be drawn, whatever the sums round to.
    """
    if isinstance(p, (int, float)) and p >= 1:
        return logits
    goal = p if isinstance(p, (int, float)) else xp.where(p >= 1, 2.0, p)  # which no sum reaches
    is_kept = selection.keep_mass(xp, logits, softmax(xp, logits), goal)
    return exclude(xp, logits, xp.logical_not(is_kept))


def min_p_mask(xp: Any, logits: Any, p: Any) -> Any:
    """Return logits with -inf for tokens less than `p` times as likely as their row's most likely; 0 keeps all."""
    if isinstance(p, (int, float)) and p <= 0:
        return logits
    ratio = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return exclude(xp, logits, ratio < p)


def highest(xp: Any, logits: Any) -> Any:
    """Return each row's id of the highest logit, int `(rows,)`; of equals, the lowest."""
    return xp.argmax(logits, axis=-1)


def draw(xp: Any, logits: Any, uniforms: Any) -> Any:
    """Return one id for each row by inverting its cumulative distribution in the order of the ids.

    Args:
        xp: the array namespace.
        logits: float `(rows, vocabulary_size)`; each row has one above -inf.
        uniforms: float `(rows,)` in [0, 1).

    Returns:
        Int `(rows,)`; never an id of probability 0, however the sums round.
    """
    return selection.draw(xp, xp.exp(logits - xp.max(logits, axis=-1, keepdims=True)), uniforms)


def draw_top_k(xp: Any, logits: Any, k: Any, uniforms: Any) -> Any:
    """Return one id for each row, drawn by `draw` among those that `top_k_mask` leaves.

    Args:
        xp: the array namespace; one that has a faster way for scalars offers it as `draw_among_highest`.
        logits: float `(rows, vocabulary_size)`; each row has one above -inf.
        k: at least 1.
        uniforms: float `(rows,)` in [0, 1).
    """

    def masked(logits: Any, uniforms: Any) -> Any:
        return draw(xp, top_k_mask(xp, logits, k), uniforms)

    own = getattr(xp, "draw_among_highest", None) if _is_scalar(k) else None
    return masked(logits, uniforms) if own is None else own(logits, k, uniforms, masked)


def draw_top_p(xp: Any, logits: Any, p: Any, uniforms: Any) -> Any:
    """Return one id for each row, drawn by `draw` among those that `top_p_mask` leaves.

    Args:
        xp: the array namespace; one that has a faster way for scalars offers it as `draw_from_nucleus`.
        logits: float `(rows, vocabulary_size)`; each row has one above -inf.
        p: above 0 and at most 1.
        uniforms: float `(rows,)` in [0, 1).
    """

    def masked(logits: Any, uniforms: Any) -> Any:
        return draw(xp, top_p_mask(xp, logits, p), uniforms)

    own = getattr(xp, "draw_from_nucleus", None) if _is_scalar(p) else None
    return masked(logits, uniforms) if own is None else own(logits, p, uniforms, masked)


def _is_scalar(value: Any) -> bool:
    return not getattr(value, "shape", ())


def constrain(
    xp: Any,
    logits: Any,
    *,
    token_ids: Any,
    counted: Any,
    index: Any,
    repetition_penalty: Any = 1.0,
    no_repeat_ngram_size: int = 0,
    excluded: Any = None,
    temperature: Any = 1.0,
    end_token_id: int | None,
) -> Any:
    """Return logits after the steps that all kinds share, in the order that `kerasgen.samplers.base` gives.

    Args:
        xp: the array namespace.
        logits: float `(rows, vocabulary_size)`, as the model gave them for position `index`.
        token_ids: int `(rows, n)`, the text in the positions before `index`.
        counted: bool `(rows, n)`, which positions are text; none from `index` on.
        index: int scalar, or int `(rows, 1)` where each row has its own.
        repetition_penalty: above 0.
        no_repeat_ngram_size: 0 sets no limit.
        excluded: bool `(rows, vocabulary_size)`, tokens that would complete a bad word; or None.
        temperature: at least 1e-6.
        end_token_id: what is left where everything is excluded, or None.

    Returns:
        Float `(rows, vocabulary_size)`; each row has one above -inf if it had one before.
    """
    changed = apply_repetition_penalty(xp, logits, token_ids, counted, repetition_penalty)
    if no_repeat_ngram_size:
        vocabulary_size = logits.shape[-1]
        repeated = ngram_mask(xp, token_ids, counted, index, no_repeat_ngram_size, vocabulary_size)
        changed = exclude(xp, changed, repeated)
    if excluded is not None:
        changed = exclude(xp, changed, excluded)
    if no_repeat_ngram_size or excluded is not None:
        changed = leave_a_choice(xp, changed, logits, end_token_id)
    return changed if isinstance(temperature, (int, float)) and temperature == 1 else changed / temperature


def text_mask(xp: Any, token_ids: Any, index: Any, frame_ids: tuple[int, ...]) -> Any:
    """Return which positions of `(rows, n)` ids are text: those before `index` that hold no start or end token.

    `index` is an int scalar, or int `(rows, 1)` where each row has its own.
    """
    places = xp.zeros_like(token_ids) + xp.expand_dims(xp.cumsum(xp.ones_like(token_ids[0])) - 1, 0)
    counted = places < index
    for token_id in frame_ids:
        counted = xp.logical_and(counted, xp.not_equal(token_ids, token_id))
    return xp.logical_and(counted, token_ids >= 0)


def contrastive_score(xp: Any, probabilities: Any, candidates: Any, context: Any, in_context: Any, alpha: float) -> Any:
    """Return each candidate's score, `(1 - alpha) * probability - alpha * greatest cosine to the context`.

    Args:
        xp: the array namespace.
        probabilities: float `(rows, k)`; a candidate of probability 0 scores -inf.
        candidates: float `(rows, k, hidden_dim)`, the candidates' hidden states.
        context: float `(rows, n, hidden_dim)`, those of the tokens before them.
        in_context: bool `(rows, n)`, true at one place at least in each row.
        alpha: from 0 to 1.

    Source: Su et al. 2022, "A contrastive framework for neural text generation", equation 5.
    """
    cosines = xp.matmul(_unit(xp, candidates), xp.swapaxes(_unit(xp, context), 1, 2))
    cosines = xp.where(xp.expand_dims(in_context, 1), cosines, -1.0)
    scores = (1 - alpha) * probabilities - alpha * xp.max(cosines, axis=-1)
    return xp.where(probabilities > 0, scores, float("-inf"))


def _unit(xp: Any, vectors: Any) -> Any:
    """Vectors of length 1; a zero vector stays zero and is like nothing."""
    length = xp.sqrt(xp.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / xp.where(length > 0, length, 1.0)
