"""Prompt lookup: texts of several proposed tokens a pass are those of one token a pass."""

from __future__ import annotations

import pytest
from tiny import tiny_gpt2

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import generate, generate_ids, stream
from kerasgen.generation.prompt_lookup import PromptLookup
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.lookahead import Beam
from kerasgen.samplers.sampling import Greedy, TopK

pytestmark = [pytest.mark.one_backend, pytest.mark.numerical]

PROMPTS = ["the man and the man and the man", "春 and the other"]


@pytest.fixture(scope="module")
def gpt2() -> LanguageModel:
    return tiny_gpt2()


def test_what_followed_the_last_tokens_before_is_proposed() -> None:
    assert PromptLookup(3).propose([1, 2, 3, 4, 5, 1, 2], 9) == [3, 4, 5]
    assert PromptLookup(3).propose([1, 2, 3, 4, 5, 1, 2], 1) == [3]
    assert PromptLookup(3).propose([7, 1, 1, 1], 9) == [1, 1, 1]
    assert PromptLookup(3).propose([1, 2, 3], 9) == []


def test_after_a_wrong_proposal_nothing_is_proposed_for_a_while() -> None:
    lookup = PromptLookup(3)
    lookup.learn(3, 0)
    assert lookup.propose([1, 2, 3, 1, 2], 9) == []
    lookup.rest(lookup.pause)
    assert lookup.propose([1, 2, 3, 1, 2], 9) == [3, 1, 2]


@pytest.mark.parametrize("spec", [Greedy(), TopK(k=2, temperature=0.5, repetition_penalty=1.1, seed=3)])
def test_ids_are_those_without(gpt2: LanguageModel, spec: SamplerSpec) -> None:
    prompts = gpt2.tokenizer.encode_batch(PROMPTS)
    wanted = generate_ids(gpt2, prompts, sampler=spec, max_new_tokens=40)
    found = generate_ids(gpt2, prompts, sampler=spec, max_new_tokens=40, prompt_lookup_num_tokens=5)
    assert [one.token_ids for (one,) in found] == [one.token_ids for (one,) in wanted]
    assert found[0][0].proposed >= found[0][0].accepted
    if spec == Greedy():
        assert sum(one.accepted for (one,) in found) > 0


def test_a_stream_is_the_text_without(gpt2: LanguageModel) -> None:
    (wanted,) = generate(gpt2, PROMPTS[:1], sampler=Greedy(), max_new_tokens=40, stop="zz")
    pieces = stream(gpt2, PROMPTS[0], sampler=Greedy(), max_new_tokens=40, stop="zz", prompt_lookup_num_tokens=5)
    assert "".join(pieces) == wanted


def test_what_decides_token_by_token_is_refused(gpt2: LanguageModel) -> None:
    for spec in (Beam(2), Greedy(bad_words=("e",)), Greedy(no_repeat_ngram_size=2)):
        with pytest.raises(GenerateArgumentError, match="prompt_lookup_num_tokens"):
            generate(gpt2, ["the"], sampler=spec, max_new_tokens=4, prompt_lookup_num_tokens=3)
    with pytest.raises(GenerateArgumentError, match="a constraint decides"):
        generate(
            gpt2, ["the"], sampler=Greedy(), constraint="regex:[a-z ]+", max_new_tokens=4, prompt_lookup_num_tokens=3
        )
