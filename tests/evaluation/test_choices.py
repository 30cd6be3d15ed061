"""What `score` tells of the likeliest tokens is what KerasHub's own forward pass computes at those places."""

from __future__ import annotations

import encoders
import numpy as np
import pytest
from llamas import llama
from tiny import tiny_gpt2, tiny_llama, tiny_opt

import kerasgen as kg
from kerasgen.evaluation.perplexity import score_texts
from kerasgen.exporters.parity import comparison
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.arithmetic import log_softmax

TEXTS = ["the cat sat on the mat", "春眠不覺曉，處處聞啼鳥。", "a"]


def expected(model: LanguageModel, ids: list[int], top: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest ids at each place and their log p, by KerasHub's logits of the text alone."""
    start = model.tokenizer.start_token_id
    whole = ids if start is None else [start, *ids]
    logits = np.asarray(comparison.reader(model, len(whole))(whole), np.float64)
    log_p = np.asarray(log_softmax(np, logits))[:, : model.tokenizer.vocabulary_size]
    order = np.argsort(-log_p, axis=-1, kind="stable")[:, :top]
    return order, np.take_along_axis(log_p, order, axis=-1)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "llama3"])
def test_the_choices_are_the_likeliest_of_the_forward_pass(family):
    model = {"gpt2": tiny_gpt2, "opt": tiny_opt, "llama": tiny_llama, "llama3": llama}[family]()
    top = 5
    for score in score_texts(model, TEXTS, top_logprobs=top):
        ids, log_p = expected(model, list(score.token_ids), top)
        first = 0 if model.tokenizer.start_token_id is not None else 1
        for place in range(first, len(score.token_ids)):
            choices = score.top_logprobs[place]
            found = np.array([choice.log_probability for choice in choices])
            np.testing.assert_allclose(found, log_p[place - first], atol=2e-4)
            # Equal ones may stand in another order, so each is looked up.
            for choice in choices:
                assert choice.token == model.tokenizer.token_bytes(choice.token_id)
            chosen = {choice.token_id: choice.log_probability for choice in choices}
            own = score.token_ids[place]
            if own in chosen:
                assert chosen[own] == pytest.approx(score.token_log_probabilities[place], abs=2e-4)
            else:
                assert score.token_log_probabilities[place] <= found[-1] + 2e-4
            assert len(set(chosen) & set(ids[place - first].tolist())) >= top - 1


@pytest.mark.one_backend
def test_a_text_longer_than_the_model_has_choices_at_every_place():
    model = tiny_gpt2(max_sequence_length=16)
    (score,) = score_texts(model, ["the cat and the dog and the sea " * 3], top_logprobs=3)
    assert len(score.token_ids) > 32
    assert [len(choices) for choices in score.top_logprobs] == [3] * len(score.token_ids)
    for own, value, choices in zip(score.token_ids, score.token_log_probabilities, score.top_logprobs, strict=True):
        told = {choice.token_id: choice.log_probability for choice in choices}
        assert told.get(own, value) == pytest.approx(value, abs=1e-5)


@pytest.mark.one_backend
def test_a_masked_model_judges_each_place_by_all_others(tmp_path):
    model = kg.Pipeline(model=str(encoders.write("roberta", tmp_path / "roberta"))).model
    (score,) = score_texts(model, ["a b c d"], top_logprobs=4)
    whole = score_texts(model, ["a b c d"], top_logprobs=10**6)[0]
    assert len(whole.top_logprobs[0]) == model.tokenizer.vocabulary_size
    for place, choices in enumerate(whole.top_logprobs):
        assert sum(np.exp(choice.log_probability) for choice in choices) == pytest.approx(1.0, abs=1e-5)
        told = {choice.token_id: choice.log_probability for choice in choices}
        assert told[score.token_ids[place]] == pytest.approx(score.token_log_probabilities[place], abs=1e-6)
        assert score.top_logprobs[place] == choices[:4]


@pytest.mark.one_backend
def test_nothing_is_told_unless_it_is_asked_for():
    model = tiny_gpt2()
    assert score_texts(model, ["the"])[0].top_logprobs == ()
    with pytest.raises(kg.errors.ArgumentError, match="top_logprobs"):
        kg.Pipeline(model="starter").score("the", top_logprobs=-1)
