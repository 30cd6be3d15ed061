"""Beam and contrastive search over whole texts, against slow searches that try what the definitions say."""

from __future__ import annotations

import itertools

import numpy as np
import oracle
import pytest
from letters import END, next_logprobs, shared_model

from kerasgen.generation import generate_ids
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.lookahead import Beam, Contrastive

pytestmark = [pytest.mark.numerical, pytest.mark.one_backend]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return shared_model()


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -0.5])
def test_beams_enough_for_every_text_find_the_best_of_all(model: LanguageModel, length_penalty: float) -> None:
    """With four letters and three tokens, 64 beams leave no text out."""
    spec = Beam(num_beams=64, num_return_sequences=7, length_penalty=length_penalty)
    for prompt in ([], [0, 1, 2]):
        texts = oracle.every_text(next_logprobs(model, [END, *prompt]), END, 3)
        wanted = sorted(texts, key=lambda text: -text[1] / len(text[0]) ** length_penalty)[:7]
        (found,) = generate_ids(model, [prompt], sampler=spec, max_new_tokens=3)
        assert [one.token_ids for one in found] == [text for text, _ in wanted]
        scores = [total / len(text) ** length_penalty for text, total in wanted]
        np.testing.assert_allclose([one.score for one in found], scores, atol=1e-4)


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("num_beams", [1, 2, 3, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -0.5])
def test_few_beams_find_what_the_slow_search_finds(
    model: LanguageModel, num_beams: int, length_penalty: float, early_stopping: bool
) -> None:
    best = min(num_beams, 2)
    spec = Beam(num_beams, length_penalty, best, early_stopping)
    prompts = [[], [0], [1, 1, 3, 2], [3, 3]]
    together = generate_ids(model, prompts, sampler=spec, max_new_tokens=6)
    for prompt, found in zip(prompts, together, strict=True):
        after = next_logprobs(model, [END, *prompt])
        wanted = oracle.beam_search(after, END, 6, num_beams, length_penalty, best, early_stopping)
        assert [one.token_ids for one in found] == [text for text, _ in wanted]
        np.testing.assert_allclose([one.score for one in found], [score for _, score in wanted], atol=1e-4)


@pytest.mark.parametrize("penalty", [0.1, 0.4, 1.5])
def test_diverse_groups_find_what_the_slow_search_finds(model: LanguageModel, penalty: float) -> None:
    """Without a penalty of length no group ends before the limit unless nothing it has could become better."""
    spec = Beam(6, 0.0, 6, num_beam_groups=3, diversity_penalty=penalty)
    prompts = [[], [0], [1, 1, 3, 2]]
    for prompt, found in zip(prompts, generate_ids(model, prompts, sampler=spec, max_new_tokens=5), strict=True):
        wanted = oracle.diverse_beam_search(next_logprobs(model, [END, *prompt]), END, 5, 2, 3, penalty, 6)
        assert sorted(one.token_ids for one in found) == sorted(text for text, _ in wanted)
        np.testing.assert_allclose([one.score for one in found], [score for _, score in wanted], atol=1e-4)


def test_a_finished_text_keeps_its_score_while_others_go_on(model: LanguageModel) -> None:
    """Its score is that of its own tokens, the end token the last of them."""
    after = next_logprobs(model, [END])
    (found,) = generate_ids(model, [[]], sampler=Beam(8, 0.0, 8), max_new_tokens=8)
    assert any(one.finished and len(one.token_ids) < 6 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert END not in one.token_ids[:-1]
        total = sum(after(one.token_ids[:n])[token] for n, token in enumerate(one.token_ids))
        assert one.score == pytest.approx(total, abs=1e-4)


def test_fewer_texts_come_back_where_there_are_no_more(model: LanguageModel) -> None:
    """One token can only be one of five."""
    (found,) = generate_ids(model, [[0]], sampler=Beam(16, 1.0, 16), max_new_tokens=1)
    assert sorted(one.token_ids for one in found) == [(0,), (1,), (2,), (3,), (4,)]


def test_excluded_words_and_ngrams_hold_in_every_beam(model: LanguageModel) -> None:
    spec = Beam(6, 1.0, 6, bad_words=("ab", "d"), no_repeat_ngram_size=2)
    (found,) = generate_ids(model, [[0]], sampler=spec, max_new_tokens=8)
    for one in found:
        text = (0, *[token for token in one.token_ids if token != END])
        assert 3 not in text
        pairs = list(itertools.pairwise(text))
        assert (0, 1) not in pairs
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(("k", "alpha"), [(2, 0.6), (3, 0.9), (5, 0.3)])
def test_contrastive_search_is_that_of_its_paper(model: LanguageModel, k: int, alpha: float) -> None:
    """Every candidate is read by the plain forward pass, and scored by the oracle."""
    for prompt in ([], [0, 1, 2, 2]):
        text = [END, *prompt]
        after = next_logprobs(model, text)
        written: list[int] = []
        for _ in range(5):
            logprobs = after(tuple(written))
            candidates = sorted(oracle.top_k(logprobs, k), key=lambda token: -logprobs[token])
            hidden = [hidden_states(model, [*text, *written, token]) for token in candidates]
            scores = [
                oracle.contrastive_score(np.exp(logprobs[token]), states[-1], states[:-1], alpha)
                for token, states in zip(candidates, hidden, strict=True)
            ]
            written.append(candidates[int(np.argmax(scores))])
            if written[-1] == END:
                break
        ((found,),) = generate_ids(model, [prompt], sampler=Contrastive(k, alpha), max_new_tokens=5)
        assert list(found.token_ids) == written


def hidden_states(model: LanguageModel, token_ids: list[int]) -> list[list[float]]:
    ids = np.zeros((1, 16), dtype="int32")
    ids[0, : len(token_ids)] = token_ids
    mask = (np.arange(16)[None] < len(token_ids)).astype("int32")
    states = model.backbone.predict_on_batch({"token_ids": ids, "padding_mask": mask})
    return np.asarray(states, dtype="float64")[0, : len(token_ids)].tolist()
