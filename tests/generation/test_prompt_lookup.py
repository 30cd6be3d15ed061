"""Prompt lookup: texts of several proposed tokens a pass are those of one token a pass."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_llama

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import engine_registry, generate, generate_ids, stream
from kerasgen.generation.batches import add_start_token
from kerasgen.generation.engine import CheckingSession
from kerasgen.generation.jax_speculation import SpeculatingSession
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
    assert PromptLookup(3).propose([1, 2, 3, 4, 1, 2, 3, 4, 1, 2], 9) == [3, 4, 1]
    assert PromptLookup(3).propose([1, 2, 3, 4, 1, 2, 3, 4, 1, 2], 1) == [3]
    assert PromptLookup(3).propose([7, 1, 1, 1, 1, 1], 9) == [1, 1, 1]
    assert PromptLookup(3).propose([1, 2, 3], 9) == []


def test_a_text_that_its_own_tokens_do_not_foretell_gets_no_proposals() -> None:
    rng = np.random.default_rng(0)
    lookup, text = PromptLookup(8, begun=40), [1, 2] * 20
    for _ in range(200):  # each pair stood there before, and something else followed
        text += [int(rng.integers(3, 1000)), 1, 2]
        assert lookup.propose(text, 9) == []
    text += [5, 6, 7, 8] * 4
    assert lookup.propose(text, 9)[:4] == [5, 6, 7, 8]


def test_a_prompt_that_repeats_itself_says_nothing_of_the_text() -> None:
    assert PromptLookup(3, begun=10).propose([1, 2, 3, 4, 1, 2, 3, 4, 1, 2], 9) == []


@pytest.fixture(scope="module")
def circling() -> LanguageModel:
    """A Llama whose layers add nothing: what follows depends on the last token alone, so its text goes in circles."""
    model = tiny_llama(num_layers=1)
    for layer in model.backbone.transformer_layers:
        for part in (layer._self_attention_layer._output_dense, layer._feedforward_output_dense):
            for variable in part.variables:
                variable.assign(np.zeros(variable.shape, np.float32))
    return model


@pytest.mark.parametrize(
    "spec", [Greedy(), pytest.param(TopK(k=2, temperature=0.1, seed=3), marks=pytest.mark.slow)], ids=repr
)
def test_ids_are_those_without(gpt2: LanguageModel, circling: LanguageModel, spec: SamplerSpec) -> None:
    for model in (gpt2, circling):
        prompts = model.tokenizer.encode_batch(PROMPTS)
        wanted = generate_ids(model, prompts, sampler=spec, max_new_tokens=90)
        found = generate_ids(model, prompts, sampler=spec, max_new_tokens=90, prompt_lookup_num_tokens=5)
        assert [one.token_ids for (one,) in found] == [one.token_ids for (one,) in wanted]
    assert sum(one.accepted for (one,) in found) > 20


def test_what_was_read_several_tokens_at_once_is_read_again_where_a_choice_is_near(
    circling: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tokens of one logit: only what is read token by token may tell which of them is chosen."""
    prompts = circling.tokenizer.encode_batch(PROMPTS[:1])
    ((before,),) = generate_ids(circling, prompts, sampler=Greedy(), max_new_tokens=90, valid_utf8=False)
    token_id = before.token_ids[-1]
    table = circling.backbone.token_embedding.reverse_embeddings  # (dim, ids)
    values = np.array(table.value)
    other = max(set(range(300)) - set(before.token_ids))
    values[:, other] = values[:, token_id]
    table.assign(values)
    read_again: list[int] = []
    original = SpeculatingSession._read_again

    def counted(session: SpeculatingSession) -> None:
        read_again.append(0 if session.is_exact else session._written - session._read_together)  # type: ignore[operator]
        original(session)

    monkeypatch.setattr(SpeculatingSession, "_read_again", counted)
    settings = {"sampler": Greedy(), "max_new_tokens": 90, "valid_utf8": False}
    ((wanted,),) = generate_ids(circling, prompts, **settings)
    ((found,),) = generate_ids(circling, prompts, prompt_lookup_num_tokens=8, **settings)
    assert found.token_ids == wanted.token_ids
    assert {token_id, other} & set(wanted.token_ids)
    assert found.accepted > 0
    assert sum(read_again) > 0


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
