"""The samplers' arithmetic, on a host and in Keras's operations, against the slow oracle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kerasgen.samplers import arithmetic, selection
from kerasgen.samplers.base import LEAST_TEMPERATURE, TokenSampler, max_candidates_of
from kerasgen.samplers.sampling import Greedy, TopK

pytestmark = pytest.mark.numerical

ROWS, VOCABULARY, LENGTH = 3, 9, 10
NEVER = float("-inf")

# Few distinct values, so that ties are common; some tokens excluded, never all of a row.
logit = st.sampled_from([-4.0, -2.5, -1.0, -0.5, 0.0, 0.25, 1.0, 1.5, 3.0, NEVER])
row = st.lists(logit, min_size=VOCABULARY, max_size=VOCABULARY).filter(lambda r: max(r) > NEVER)
rows = st.lists(row, min_size=ROWS, max_size=ROWS)
# Fractions that float32 holds exactly.
uniform = st.integers(0, 2**24 - 1).map(lambda n: n / 2**24)
share = st.integers(0, 2**16).map(lambda n: n / 2**16)
texts = st.lists(st.lists(st.integers(0, 3), min_size=LENGTH, max_size=LENGTH), min_size=ROWS, max_size=ROWS)

# Eager Keras operations are slow; what they share with numpy is tried often enough there.
both = pytest.mark.parametrize("where", ["numpy", "keras"])
tried = settings(max_examples=40, deadline=None, derandomize=True)


def namespace(where: str) -> tuple[Any, Any, Any]:
    """The namespace, and how to hand it an array and get one back."""
    if where == "numpy":
        return np, np.asarray, np.asarray
    from kerasgen import backend

    backend.use()
    from keras import ops

    def give(values: Any) -> Any:
        array = np.asarray(values)
        return ops.convert_to_tensor(array.astype({"f": "float32", "i": "int32"}.get(array.dtype.kind, array.dtype)))

    return ops, give, ops.convert_to_numpy


def kept(masked: np.ndarray, before: list[list[float]]) -> list[set[int]]:
    """Which tokens are left; their logits must be as before."""
    for new, old in zip(masked, before, strict=True):
        np.testing.assert_array_equal(new[new > NEVER], np.asarray(old, dtype=masked.dtype)[new > NEVER])
    return [set(np.flatnonzero(new > NEVER).tolist()) for new in masked]


def finite(logits: list[float], tokens: set[int]) -> set[int]:
    return {token for token in tokens if logits[token] > NEVER}


@tried
@given(
    data=st.data(), size=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1), distinct=st.sampled_from([3, 40, 10**6])
)
def test_the_highest_places_are_those_of_a_stable_sort(
    data: st.DataObject, size: int, seed: int, distinct: int
) -> None:
    """However many there are beside the rows' length, with equals, and with places that are excluded."""
    values = np.random.default_rng(seed).integers(0, distinct, (2, size)).astype(np.float32)
    values[values < distinct * data.draw(st.sampled_from([0.0, 0.5, 0.999]))] = NEVER
    count = data.draw(st.one_of(st.integers(1, size), st.integers(1, min(size, 8))))
    expected = np.argsort(-values, axis=-1, kind="stable")[:, :count]
    np.testing.assert_array_equal(selection.highest_places(np, values, count), expected)
    kept = selection.keep_highest(np, values, np.full((2, 1), count))
    np.testing.assert_array_equal(np.flatnonzero(kept[1]), np.sort(expected[1]))


@tried
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(2, 2000),
    sampler=st.sampled_from([Greedy(), TopK(k=1), TopK(k=5), TopK(k=300), TopK(k=4000)]),
    distinct=st.sampled_from([4, 10**6]),
)
def test_what_is_chosen_among_the_likeliest_is_what_is_chosen_among_all(
    seed: int, size: int, sampler: TokenSampler, distinct: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, distinct, (2, size)) * (8.0 / distinct)
    uniforms = rng.random(2)
    max_candidates = max_candidates_of(sampler)
    assert max_candidates is not None
    ids = np.sort(selection.highest_places(np, logits, min(max_candidates, size)), axis=-1)
    chosen = sampler.choose(np, np.take_along_axis(logits, ids, axis=-1), uniforms)
    np.testing.assert_array_equal(ids[np.arange(2), chosen], sampler.choose(np, logits, uniforms))


@both
def test_a_draw_from_nan_is_a_place_all_the_same(where: str) -> None:
    """Rows are padded inside, and the last place of the padding is in no vocabulary."""
    xp, give, take = namespace(where)
    drawn = take(selection.draw(xp, give(np.full((2, 300), np.nan)), give(np.array([0.0, 0.9]))))
    assert ((drawn >= 0) & (drawn < 300)).all()


@both
def test_the_least_temperature_leaves_logits_finite(where: str) -> None:
    xp, give, take = namespace(where)
    logits = np.array([[-3e4, 2e4, 1e4, NEVER]])
    drawn = take(arithmetic.draw(xp, give(logits) / LEAST_TEMPERATURE, give(np.array([0.9]))))
    assert drawn.tolist() == [1]


@tried
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e4]), kind=st.sampled_from(["f4", "f8"]))
def test_the_partition_is_the_sum_of_all_powers(seed: int, scale: float, kind: str) -> None:
    logits = (np.random.default_rng(seed).standard_normal((3, 500)) * scale).astype(kind)
    logits[:, ::7] = NEVER
    expected = [
        math.log(math.fsum(math.exp(float(x) - float(max(row))) for x in row)) + float(max(row)) for row in logits
    ]
    np.testing.assert_allclose(arithmetic.log_partition(logits)[:, 0], expected, rtol=1e-6, atol=1e-6)


@both
@tried
@given(logits=rows, k=st.integers(1, VOCABULARY + 3))
def test_top_k_keeps_the_k_likeliest_and_of_equals_the_lower_ids(where: str, logits: list[list[float]], k: int) -> None:
    xp, give, take = namespace(where)
    left = kept(take(arithmetic.top_k_mask(xp, give(logits), k)), logits)
    assert left == [finite(one, oracle.top_k(one, k)) for one in logits]


@both
@tried
@given(logits=rows, p=share.filter(bool))
def test_top_p_keeps_the_smallest_nucleus(where: str, logits: list[list[float]], p: float) -> None:
    xp, give, take = namespace(where)
    wanted = []
    for one in logits:
        tokens, edges = oracle.top_p(one, p)
        assume(min(abs(edge - p) for edge in edges) > 1e-5)  # or rounding decides
        wanted.append(finite(one, tokens))
    assert kept(take(arithmetic.top_p_mask(xp, give(logits), p)), logits) == wanted


@both
@tried
@given(logits=rows, p=share)
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(
    where: str, logits: list[list[float]], p: float
) -> None:
    xp, give, take = namespace(where)
    for one in logits:
        assume(all(abs(likely / max(oracle.probabilities(one)) - p) > 1e-5 or likely == max(oracle.probabilities(one))
                   for likely in oracle.probabilities(one)))  # fmt: skip
    left = kept(take(arithmetic.min_p_mask(xp, give(logits), p)), logits)
    assert left == [finite(one, oracle.min_p(one, p)) for one in logits]


@both
@tried
@given(logits=rows, uniforms=st.lists(uniform, min_size=ROWS, max_size=ROWS))
def test_a_draw_inverts_the_cumulative_distribution(
    where: str, logits: list[list[float]], uniforms: list[float]
) -> None:
    xp, give, take = namespace(where)
    wanted = []
    for one, u in zip(logits, uniforms, strict=True):
        token, sums = oracle.draw(one, min(u, 1 - 1e-9))
        assume(min(abs(total - u) for total in sums) > 1e-5)
        wanted.append(token)
    assert take(arithmetic.draw(xp, give(logits), give(uniforms))).tolist() == wanted


@both
@tried
@given(logits=rows, u=st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-24, 1 - 2.0**-53]))
def test_an_excluded_token_is_never_drawn_however_the_sums_round(
    where: str, logits: list[list[float]], u: float
) -> None:
    """In float32 the largest uniform rounds to 1, and so can a sum before the last token."""
    xp, give, take = namespace(where)
    tokens = take(arithmetic.draw(xp, give(logits), give([u] * ROWS)))
    assert all(one[token] > NEVER for one, token in zip(logits, tokens, strict=True))


@both
@tried
@given(logits=rows, u=uniform)
def test_top_k_of_one_never_disagrees_with_greedy(where: str, logits: list[list[float]], u: float) -> None:
    """However flat the logits, one candidate leaves no choice."""
    xp, give, take = namespace(where)
    array = give(logits)
    one = arithmetic.draw(xp, arithmetic.top_k_mask(xp, array, 1), give([u] * ROWS))
    assert take(one).tolist() == take(arithmetic.highest(xp, array)).tolist() == [r.index(max(r)) for r in logits]


@both
@tried
@given(logits=rows, text=texts, length=st.integers(0, LENGTH), penalty=st.sampled_from([0.5, 1.0, 1.2, 2.0]))
def test_the_repetition_penalty_is_for_tokens_of_the_text_alone(
    where: str, logits: list[list[float]], text: list[list[int]], length: int, penalty: float
) -> None:
    xp, give, take = namespace(where)
    counted = arithmetic.text_mask(xp, give(text), length, ())
    found = take(arithmetic.apply_repetition_penalty(xp, give(logits), give(text), counted, penalty))
    wanted = [oracle.repetition_penalty(one, ids[:length], penalty) for one, ids in zip(logits, text, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@both
@tried
@given(text=texts, index=st.integers(0, LENGTH), size=st.integers(1, 4))
def test_no_ngram_comes_twice(where: str, text: list[list[int]], index: int, size: int) -> None:
    xp, give, take = namespace(where)
    counted = arithmetic.text_mask(xp, give(text), index, ())
    mask = take(arithmetic.ngram_mask(xp, give(text), counted, give(index), size, 4))
    assert [set(np.flatnonzero(one).tolist()) for one in mask] == [
        oracle.would_repeat(ids[:index], size) for ids in text
    ]


@both
def test_start_and_end_tokens_are_no_text(where: str) -> None:
    """A model that frames its texts with one token must stay free to end a second one."""
    xp, give, take = namespace(where)
    text = give([[3, 0, 1, 3]])
    counted = arithmetic.text_mask(xp, text, 3, (3,))
    assert take(counted).tolist() == [[False, True, True, False]]
    assert take(arithmetic.ngram_mask(xp, text, counted, give(3), 1, 4)).tolist() == [[True, True, False, False]]


@both
@pytest.mark.parametrize("end", [2, None])
def test_where_everything_is_excluded_the_text_ends(where: str, end: int | None) -> None:
    xp, give, take = namespace(where)
    logits = give([[0.0, 1.0, -1.0], [0.0, 1.0, -1.0]])
    changed = arithmetic.constrain(
        xp,
        logits,
        token_ids=give([[0], [0]]),
        counted=give([[True], [True]]),
        index=1,
        excluded=give([[True, True, True], [False, True, False]]),
        temperature=0.5,
        end_token_id=end,
    )
    chosen = take(arithmetic.draw(xp, changed, give([0.4, 0.4])))
    assert chosen.tolist() == [1 if end is None else end, 0]
    assert not np.isnan(take(arithmetic.log_softmax(xp, changed))).any()


@both
@tried
@given(logits=rows)
def test_probabilities_are_those_of_the_definition(where: str, logits: list[list[float]]) -> None:
    xp, give, take = namespace(where)
    wanted = np.array([oracle.probabilities(one) for one in logits])
    np.testing.assert_allclose(take(arithmetic.softmax(xp, give(logits))), wanted, rtol=1e-5)
    found = take(arithmetic.log_softmax(xp, give(logits)))
    np.testing.assert_allclose(np.exp(found), wanted, rtol=1e-5)


@both
@tried
@given(data=st.data(), alpha=st.sampled_from([0.0, 0.25, 0.6, 1.0]))
def test_the_contrastive_score_is_that_of_its_paper(where: str, data: st.DataObject, alpha: float) -> None:
    xp, give, take = namespace(where)
    seed = data.draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    candidates, context = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4))
    probabilities, length = rng.random((2, 3)), data.draw(st.integers(1, 5))
    inside = np.broadcast_to(np.arange(5) < length, (2, 5))
    found = take(
        arithmetic.contrastive_score(xp, give(probabilities), give(candidates), give(context), give(inside), alpha)
    )
    wanted = [
        [
            oracle.contrastive_score(p, c, context[row, :length].tolist(), alpha)
            for p, c in zip(probabilities[row], candidates[row].tolist(), strict=True)
        ]
        for row in range(2)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_million_draws_have_the_models_frequencies() -> None:
    logits = [0.0, 1.0, NEVER, 2.0, -3.0]
    uniforms = np.random.default_rng(0).random(1_000_000)
    # A part at a time, for all of them at once take 12 GB.
    parts = np.split(uniforms, 100)
    tokens = np.concatenate([arithmetic.draw(np, np.tile(logits, (len(part), 1)), part) for part in parts])
    frequencies = np.bincount(tokens, minlength=5) / len(uniforms)
    for frequency, probability in zip(frequencies, oracle.probabilities(logits), strict=True):
        assert abs(frequency - probability) <= 5 * math.sqrt(probability * (1 - probability) / len(uniforms))
