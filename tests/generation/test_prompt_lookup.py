"""Prompt lookup: texts of several proposed tokens a pass are those of one token a pass."""

from __future__ import annotations

import pytest
from tiny import tiny_gpt2

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import engine_registry, generate, generate_ids, stream
from kerasgen.generation.batches import add_start_token
from kerasgen.generation.engine import CheckingSession
from kerasgen.generation.prompt_lookup import PromptLookup
from kerasgen.models.base import LanguageModel
from kerasgen.samplers import randomness
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
    assert sum(one.proposed for (one,) in found) > 0


@pytest.mark.parametrize("spec", [Greedy(), TopK(k=4, seed=3)])
@pytest.mark.parametrize("right", [0, 2, 5])
def test_proposals_are_taken_as_far_as_they_are_right(gpt2: LanguageModel, spec: SamplerSpec, right: int) -> None:
    (prompt,) = gpt2.tokenizer.encode_batch(PROMPTS[:1])
    ((text,),) = generate_ids(gpt2, [prompt], sampler=spec, max_new_tokens=30, valid_utf8=False)
    wanted = text.token_ids
    assert len(wanted) > 8
    with_start = tuple(add_start_token(gpt2, [prompt])[0])
    session = engine_registry.resolve(gpt2).open([with_start], [len(with_start) + 30])
    assert isinstance(session, CheckingSession)
    assert session.can_check(spec)
    keys = randomness.keys([spec.seed or 0], [with_start], [0])
    found = session.check((), spec, keys, 0, 30).token_ids[:, 0].tolist()
    proposal = [*wanted[1 : 1 + right], *((token_id + 1) % 200 for token_id in wanted[1 + right : 6])]
    found += session.check(proposal, spec, keys, 1, 29).token_ids[:, 0].tolist()
    assert tuple(found) == wanted[: right + 2]
    while len(found) < len(wanted):
        found += session.check((), spec, keys, len(found), 30 - len(found)).token_ids[:, 0].tolist()
    assert tuple(found) == wanted


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
            gpt2,
            ["the"],
            sampler=Greedy(),
            constraint="regex:pattern=[a-z ]+",
            max_new_tokens=4,
            prompt_lookup_num_tokens=3,
        )
