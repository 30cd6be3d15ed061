"""Texts out of prompts: the same alone and among others, the same as KerasHub's, and never cut in silence."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from letters import letter_model, shared_model
from tiny import roughen, tiny_gpt2, tiny_opt
from toys import by_keras_hub

from kerasgen.constraints.regex import Regex
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.errors import GenerateArgumentError, GenerationError, SamplerArgumentError
from kerasgen.generation import Continuation, decode, engine_registry, generate, generate_ids, stream
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec, max_candidates_of
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP

pytestmark = pytest.mark.numerical

PROMPTS = ["the man", "", "春 and the other", "in"]
OF_LETTERS = ["", "a", "bb", "abcdabcdabcdabcdabcdabcdabcdabcd", "ccc", "d" * 20]
SPECS = [
    Greedy(),
    Random(),
    TopK(5, temperature=0.8),
    TopP(0.8, repetition_penalty=1.3),
    MinP(0.1, no_repeat_ngram_size=2),
    Beam(num_beams=3),
    Contrastive(k=4),
]
KINDS = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)


@pytest.fixture(scope="module")
def gpt2() -> LanguageModel:
    return tiny_gpt2()


@pytest.fixture(scope="module")
def letters() -> LanguageModel:
    return shared_model()


def alone(model: LanguageModel, prompts: Sequence[str], spec: SamplerSpec, **limit: int) -> list[list[Continuation]]:
    return [generate_ids(model, [model.tokenizer.encode(prompt)], sampler=spec, **limit)[0] for prompt in prompts]


def tokens(found: list[list[Continuation]]) -> list[list[tuple[int, ...]]]:
    return [[continuation.token_ids for continuation in several] for several in found]


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_opt])
def test_greedy_text_is_that_of_keras_hubs_own_generate(make) -> None:
    model = make(seed=3)
    model.causal_lm.compile(sampler="greedy")
    for prompt in PROMPTS:
        ids = model.tokenizer.encode(prompt)
        (found,) = generate_ids(model, [ids], sampler=Greedy(), max_length=32, valid_utf8=False)
        assert list(found[0].token_ids) == by_keras_hub(model, prompt, 32)


class Second(Greedy):
    """The second likeliest, of a kind whose parent looks at the likeliest alone."""

    inputs = None

    def choose(self, xp, logits, uniforms):
        return xp.argsort(-logits, axis=-1)[:, 1]


@pytest.mark.one_backend
def test_a_choice_of_ones_own_sees_all_logits_whatever_its_parent_reaches(letters: LanguageModel) -> None:
    logits = engine_registry.resolve(letters).open([[4, 0]], [3]).logits()
    for logprobs in (True, False):
        ((found,),) = generate_ids(letters, [[0]], sampler=Second(), max_new_tokens=1, logprobs=logprobs)
        assert found.token_ids == (int(np.argsort(-logits[0])[1]),)


@pytest.mark.one_backend
def test_a_reach_speaks_for_the_choice_of_its_own_class_and_those_above() -> None:
    class Loud(TopK):
        """Writes neither anew."""

    class Third(Second):
        max_candidates = 3

    assert [max_candidates_of(spec) for spec in (Greedy(), TopK(7), Loud(k=7), Random(), Second(), Third())] == [
        1, 7, 7, None, None, 3,
    ]  # fmt: skip


@pytest.mark.one_backend
@KINDS
def test_a_prompt_gives_among_others_what_it_gives_alone(gpt2: LanguageModel, spec: SamplerSpec) -> None:
    together = generate_ids(gpt2, gpt2.tokenizer.encode_batch(PROMPTS), sampler=spec, max_new_tokens=12)
    assert tokens(together) == tokens(alone(gpt2, PROMPTS, spec, max_new_tokens=12))


@pytest.mark.one_backend
@KINDS
def test_texts_that_end_early_leave_longer_prompts_as_they_are(letters: LanguageModel, spec: SamplerSpec) -> None:
    """Short texts are done long before the long prompt's first token, and many end with the end token."""
    together = generate_ids(letters, letters.tokenizer.encode_batch(OF_LETTERS), sampler=spec, max_new_tokens=6)
    assert tokens(together) == tokens(alone(letters, OF_LETTERS, spec, max_new_tokens=6))


@pytest.mark.one_backend
@pytest.mark.parametrize("spec", [Random(), Beam(num_beams=3), Contrastive(k=4)], ids=lambda spec: type(spec).__name__)
def test_prompts_in_batches_of_two_give_what_they_give_together(letters: LanguageModel, spec: SamplerSpec) -> None:
    """One of each loop; what a sampler chooses has no part in how prompts are cut into batches."""
    ids = letters.tokenizer.encode_batch(OF_LETTERS)
    together = generate_ids(letters, ids, sampler=spec, max_new_tokens=6)
    assert tokens(generate_ids(letters, ids, sampler=spec, max_new_tokens=6, batch_size=2)) == tokens(together)


@pytest.mark.one_backend
def test_some_of_the_letter_models_texts_end_and_some_are_cut(letters: LanguageModel) -> None:
    """Or the tests with it would show less than they say."""
    found = generate_ids(letters, [[]] * 12, sampler=Random(), max_new_tokens=6)
    assert {several[0].finished for several in found} == {True, False}
    assert all((several[0].token_ids[-1] == 4) == several[0].finished for several in found)
    assert all(4 not in several[0].token_ids[:-1] for several in found)


@pytest.mark.one_backend
def test_the_same_seed_gives_the_same_text_at_every_call(gpt2: LanguageModel) -> None:
    def write(**settings: int) -> list[str]:
        return generate(gpt2, ["the", "a"], sampler=Random(), max_new_tokens=16, **settings)

    assert write(seed=1) == write(seed=1)
    assert write(seed=1) != write(seed=2)
    assert write(seed=1) == generate(gpt2, ["the", "a"], sampler=Random(seed=1), max_new_tokens=16)
    assert write(seed=1) == generate(gpt2, ["the", "a"], sampler=Random(seed=9), max_new_tokens=16, seed=1)


@pytest.mark.one_backend
def test_a_prompt_given_twice_gives_two_texts_and_the_first_is_its_own(gpt2: LanguageModel) -> None:
    first, other, second, third = generate(
        gpt2, ["the", "a", "the", "the"], sampler=Random(), max_new_tokens=16, batch_size=2
    )
    assert [first] == generate(gpt2, ["the"], sampler=Random(), max_new_tokens=16)
    assert [other] == generate(gpt2, ["a"], sampler=Random(), max_new_tokens=16)
    assert len({first, second, third}) == 3


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "spec",
    [TopK(1), TopP(1e-9), MinP(1.0), Beam(num_beams=1, early_stopping=True), Contrastive(k=1), Contrastive(5, 0)],
)
def test_what_leaves_no_choice_is_greedy(gpt2: LanguageModel, letters: LanguageModel, spec: SamplerSpec) -> None:
    for model, prompts in ((gpt2, PROMPTS), (letters, ["", "ab", "dd"])):
        assert tokens(alone(model, prompts, spec, max_new_tokens=10)) == tokens(
            alone(model, prompts, Greedy(), max_new_tokens=10)
        )


@pytest.mark.one_backend
@pytest.mark.parametrize("spec", [TopK(10_000), TopP(1.0), MinP(0.0)])
def test_what_leaves_every_choice_is_a_plain_draw(gpt2: LanguageModel, spec: SamplerSpec) -> None:
    assert tokens(alone(gpt2, PROMPTS, spec, max_new_tokens=10)) == tokens(
        alone(gpt2, PROMPTS, Random(), max_new_tokens=10)
    )


def test_a_score_is_what_the_model_itself_gives_the_tokens(letters: LanguageModel) -> None:
    from letters import next_logprobs

    logprobs_after = next_logprobs(letters, [4, 0])
    ((found,),) = generate_ids(letters, [[0]], sampler=TopK(2, temperature=0.5), max_new_tokens=6)
    wanted = sum(logprobs_after(found.token_ids[:n])[token] for n, token in enumerate(found.token_ids))
    assert found.score == pytest.approx(wanted, abs=1e-4)


def test_fine_tuned_weights_are_used_without_being_told() -> None:
    """Weights baked into a compiled function would go on writing the old text."""
    model = tiny_gpt2(seed=5)
    before = generate(model, ["the"], sampler=Greedy(), max_new_tokens=12)
    roughen(model.backbone, seed=6)
    assert generate(model, ["the"], sampler=Greedy(), max_new_tokens=12) != before
    roughen(model.backbone, seed=5)
    assert generate(model, ["the"], sampler=Greedy(), max_new_tokens=12) == before


def test_texts_of_like_length_share_what_is_compiled_and_nothing_outlives_the_model() -> None:
    from kerasgen.generation import keras_passes as passes
    from kerasgen.generation.keras_engine import KerasEngine

    model = tiny_gpt2(seed=5)
    engine = KerasEngine(model)
    generate(engine, ["the"], sampler=Greedy(), max_new_tokens=4)
    compiled = set(passes._COMPILED[model.causal_lm])
    generate(engine, ["another one"], sampler=TopK(3), max_length=31)
    assert set(passes._COMPILED[model.causal_lm]) == compiled
    gone = weakref.ref(model.causal_lm)
    del model, engine
    gc.collect()
    assert gone() is None


def test_a_model_without_a_cache_writes_the_same(gpt2: LanguageModel) -> None:
    import keras_hub

    class Cacheless(keras_hub.models.GPT2CausalLM):
        call_with_cache = None

    slow = LanguageModel(Cacheless(backbone=gpt2.backbone), gpt2.tokenizer, "cacheless")
    ids = gpt2.tokenizer.encode_batch(PROMPTS)
    for spec in (Greedy(), TopK(5), Beam(num_beams=2)):
        assert tokens(generate_ids(slow, ids, sampler=spec, max_new_tokens=8)) == tokens(
            generate_ids(gpt2, ids, sampler=spec, max_new_tokens=8)
        )
    with pytest.raises(GenerateArgumentError, match="hidden states"):
        generate_ids(slow, ids, sampler=Contrastive(), max_new_tokens=8)


@pytest.mark.one_backend
def test_the_prompt_comes_back_exactly_as_given(gpt2: LanguageModel) -> None:
    prompts = ["a\n\nb \t", "<|endoftext|>", "😀 春", ""]
    whole = generate(gpt2, prompts, sampler=Random(), max_new_tokens=5)
    new = generate(gpt2, prompts, sampler=Random(), max_new_tokens=5, return_prompt=False)
    assert whole == [prompt + text for prompt, text in zip(prompts, new, strict=True)]


@pytest.mark.one_backend
def test_a_limit_never_leaves_half_a_character(gpt2: LanguageModel) -> None:
    ids = gpt2.tokenizer.encode("a丈")
    assert len(ids) > 2  # the character is cut by some length
    for length in range(2, len(ids)):
        assert decode(gpt2, Continuation(tuple(ids[:length]), 0.0, finished=False)) == "a"
    assert decode(gpt2, Continuation(tuple(ids), 0.0, finished=False)) == "a丈"
    ended = (*ids[:2], gpt2.tokenizer.end_token_id)
    assert decode(gpt2, Continuation(ended, 0.0, finished=True)) == "a\ufffd"


@pytest.mark.one_backend
@pytest.mark.parametrize("spec", [Random(), Contrastive()], ids=lambda spec: type(spec).__name__)
def test_a_streamed_text_is_the_generated_one(gpt2: LanguageModel, spec: SamplerSpec) -> None:
    pieces = list(stream(gpt2, "the 春", sampler=spec, max_new_tokens=20))
    assert ["".join(pieces)] == generate(gpt2, ["the 春"], sampler=spec, max_new_tokens=20)
    assert len(pieces) > 5
    assert all(pieces)


@pytest.mark.one_backend
def test_a_stream_of_beams_is_refused_at_the_call(gpt2: LanguageModel) -> None:
    with pytest.raises(GenerateArgumentError, match="Beam"):
        stream(gpt2, "the", sampler="beam")


@pytest.mark.one_backend
def test_a_contrastive_stream_that_no_loop_runs_is_refused_at_the_call(
    gpt2: LanguageModel,
) -> None:
    """With a form, and by an engine that shows no hidden states."""
    with pytest.raises(GenerateArgumentError, match="takes no constraint"):
        stream(gpt2, "the", sampler="contrastive", constraint=Regex("the[a-z]{4}"))
    host = NumpyEngine(*keras_weights.decoder_of(gpt2.causal_lm), gpt2.tokenizer)
    with pytest.raises(GenerateArgumentError, match="hidden states"):
        stream(host, "the", sampler="contrastive")


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ({"max_length": 8}, r"Prompt 1 has 8 tokens .* is 8"),
        ({"max_length": 3}, r"Prompt 1 has 8 tokens .* is 3"),
        ({"max_length": 65}, "64 positions.*max_length=65"),
        ({"max_new_tokens": 57}, "Prompt 1 has 8 tokens.*65.*64 positions"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_length": 20, "max_new_tokens": 5}, "max_length=20, max_new_tokens=5"),
        ({"seed": -1}, "seed=-1"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_an_error_with_its_numbers(
    letters: LanguageModel, limit: dict[str, int], says: str
) -> None:
    with pytest.raises(GenerateArgumentError, match=says):
        generate(letters, ["a", "abcdabc"], sampler=Greedy(), **limit)


@pytest.mark.one_backend
def test_a_prompt_longer_than_the_models_positions_is_an_error(letters: LanguageModel) -> None:
    with pytest.raises(GenerateArgumentError, match=r"Prompt 0 has 71 tokens.*64"):
        generate(letters, ["a" * 70], sampler=Greedy())


@pytest.mark.one_backend
def test_prompts_must_be_a_list_of_strings_and_ids_of_the_tokenizer(letters: LanguageModel) -> None:
    with pytest.raises(GenerateArgumentError, match="list of strings"):
        generate(letters, "abc", sampler=Greedy())
    with pytest.raises(GenerateArgumentError, match="5 in prompt 1"):
        generate_ids(letters, [[0], [5]], sampler=Greedy())
    with pytest.raises(SamplerArgumentError, match="TopK"):
        generate(letters, ["a"], sampler=TopK)


@pytest.mark.one_backend
def test_an_empty_prompt_needs_a_start_token() -> None:
    model = letter_model(seed=2, starts=False)
    with pytest.raises(GenerateArgumentError, match="Prompt 1 is empty"):
        generate(model, ["a", ""], sampler=Greedy())
    assert generate(model, ["a"], sampler=Greedy(), max_length=3)[0].startswith("a")


@pytest.mark.one_backend
def test_with_no_limit_a_text_fills_the_models_positions(letters: LanguageModel) -> None:
    found = generate_ids(letters, [[0, 1]] * 3, sampler=Random(bad_words=("zz",)), seed=1)
    lengths = [3 + len(several[0].token_ids) for several in found]
    assert all(several[0].finished or length == 64 for several, length in zip(found, lengths, strict=True))
    assert generate(letters, [], sampler=Greedy()) == []


@pytest.mark.one_backend
def test_weights_that_are_not_finite_are_an_error_not_a_text() -> None:
    model = letter_model(seed=2)
    model.backbone.weights[0].assign(np.full(model.backbone.weights[0].shape, np.nan))
    with pytest.raises(GenerationError, match="not finite"):
        generate(model, ["a"], sampler=Greedy(), max_length=4)
