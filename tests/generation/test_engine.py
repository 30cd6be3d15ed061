"""The compiled engine: what is compiled, what is read, and texts that don't depend on how they were decoded."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
import pytest
from letters import END, next_logprobs, shared_model
from tiny import tiny_gpt2, tiny_opt
from toys import by_keras_hub, smallest_llama, tiny_gemma, tiny_qwen

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import engine_registry, generate, generate_ids, stream
from kerasgen.generation.jax_engine import JaxEngine
from kerasgen.generation.jax_session import JaxSession
from kerasgen.generation.keras_engine import KerasEngine
from kerasgen.generation.prompt import Prompt
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import TokenSampler
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP

pytestmark = pytest.mark.numerical

END_OF_GPT2 = 299
PROMPTS = ["the man", "", "春 and the other", "in"]


@pytest.fixture(scope="module")
def gpt2() -> LanguageModel:
    return tiny_gpt2()


def engine_of(model: LanguageModel) -> JaxEngine:
    engine = engine_registry.resolve(model)
    assert isinstance(engine, JaxEngine)
    return engine


@pytest.mark.essential
@pytest.mark.parametrize("make", [tiny_gpt2, tiny_opt])
def test_the_compiled_engine_writes_what_keras_writes(make) -> None:
    """Over more than one growth of the cache, with rows that leave, and with beams that are reordered."""
    model = make(seed=3)
    slow = KerasEngine(model)
    prompts = model.tokenizer.encode_batch(PROMPTS)
    for spec in (
        Greedy(),
        TopP(0.8, repetition_penalty=1.3),
        MinP(0.1, no_repeat_ngram_size=2),
        Beam(3),
        Beam(4, num_beam_groups=2, diversity_penalty=0.5, num_return_sequences=4),
        Contrastive(4),
    ):
        found, wanted = (generate_ids(one, prompts, sampler=spec, max_new_tokens=36) for one in (model, slow))
        for several, others in zip(found, wanted, strict=True):
            assert [one.token_ids for one in several] == [one.token_ids for one in others]
            np.testing.assert_allclose([one.score for one in several], [one.score for one in others], atol=1e-3)


@pytest.mark.one_backend
def test_numbers_and_lengths_within_a_bucket_compile_nothing(gpt2: LanguageModel) -> None:
    """Ten prompt lengths, ten temperatures, seeds, penalties, stop strings: the first call's graph serves all.

    Without a penalty it is another graph.
    """
    engine = engine_of(gpt2)
    for kind in (TopK, TopP):
        for penalty in (1.0, 1.1):
            generate(gpt2, ["t"], sampler=kind(repetition_penalty=penalty), max_new_tokens=20)
        before = engine.compilations
        for n in range(10):
            own = {"k": 2 + n} if kind is TopK else {"p": 0.5 + n / 25}
            sampler = kind(temperature=0.5 + n / 10, repetition_penalty=1 + n / 20, seed=n, **own)
            generate(gpt2, ["t" * (1 + n)], sampler=sampler, max_new_tokens=20 + n, stop=["z" * (n + 1)])
        assert engine.compilations == before


def test_new_weights_compile_nothing() -> None:
    from tiny import roughen

    model = tiny_gpt2(seed=5)
    before = generate(model, ["the"], sampler=Greedy(), max_new_tokens=8)
    compiled = engine_of(model).compilations
    roughen(model.backbone, seed=6)
    after = generate(model, ["the"], sampler=Greedy(), max_new_tokens=8)
    assert after == generate(tiny_gpt2(seed=6), ["the"], sampler=Greedy(), max_new_tokens=8) != before
    assert engine_of(model).compilations == compiled


@pytest.mark.one_backend
def test_a_sampler_that_is_defined_again_under_its_name_is_the_new_one(gpt2: LanguageModel) -> None:
    """As where a notebook's cell runs a second time."""

    def defined(sign: int) -> TokenSampler:
        class Signed(TokenSampler):
            draws: ClassVar[bool] = False
            inputs: ClassVar[tuple[str, ...] | None] = ()

            def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
                return xp.argmax(sign * logits, axis=-1)

        return Signed()

    def written(sign: int) -> Any:
        return generate_ids(gpt2, [[5, 6, 7]], sampler=defined(sign), max_new_tokens=4, valid_utf8=False)[0][
            0
        ].token_ids

    likeliest, least = written(1), written(-1)
    assert least != likeliest
    assert written(1) == likeliest


@pytest.mark.one_backend
def test_streams_of_many_prompts_are_the_generated_texts(gpt2: LanguageModel) -> None:
    rng = np.random.default_rng(0)
    letters = list("the an春花, \n")
    prompts = ["".join(rng.choice(letters, size=rng.integers(1, 15))) for _ in range(40)]
    sampler = TopP(0.95)
    settings = {"sampler": sampler, "max_new_tokens": 24, "stop": ["an", "花", "ee"], "seed": 3}
    wanted = [generate(gpt2, [prompt], **settings)[0] for prompt in prompts]
    for prompt, text in zip(prompts, wanted, strict=True):
        pieces = list(stream(gpt2, prompt, **settings))
        assert "".join(pieces) == text
        assert all(pieces)
        assert not any("\ufffd" in piece[:-1] and piece.endswith("\ufffd") for piece in pieces[:1])
    # The random streams of prompts that come more than once differ from the first; of others, a batch is as solo calls.
    once = [prompt for prompt in prompts if prompts.count(prompt) == 1]
    assert generate(gpt2, once, **settings) == [wanted[prompts.index(prompt)] for prompt in once]


@pytest.mark.one_backend
def test_a_stop_string_ends_a_text_wherever_it_lies(gpt2: LanguageModel) -> None:
    text = generate(gpt2, ["the"], sampler=Random(), max_new_tokens=40, return_prompt=False)[0]
    for begin in range(0, len(text) - 4, 5):
        stop = text[begin : begin + 4]
        cut = generate(gpt2, ["the"], sampler=Random(), max_new_tokens=40, return_prompt=False, stop=["~~~", stop])
        assert cut == [text[: text.index(stop)]]
        pieces = stream(gpt2, "the", sampler=Random(), max_new_tokens=40, return_prompt=False, stop=stop)
        assert "".join(pieces) == cut[0]
    with pytest.raises(GenerateArgumentError, match="not empty"):
        generate(gpt2, ["the"], sampler=Random(), stop=[""])


@pytest.mark.one_backend
def test_several_sequences_are_draws_of_their_own_and_the_first_is_the_solo_one(gpt2: LanguageModel) -> None:
    alone = generate(gpt2, ["the", "a"], sampler=Random(), max_new_tokens=12, seed=[4, 5])
    several = generate(gpt2, ["the", "a"], sampler=Random(), max_new_tokens=12, seed=[4, 5], num_return_sequences=3)
    assert [texts[0] for texts in several] == alone
    assert all(len(set(texts)) == 3 for texts in several)
    assert generate(gpt2, ["the"], sampler=Random(), max_new_tokens=12, seed=4) == alone[:1]
    assert generate(gpt2, ["a"], sampler=Random(), max_new_tokens=12, seed=4) != alone[1:]
    with pytest.raises(GenerateArgumentError, match="2 prompts"):
        generate(gpt2, ["the", "a"], sampler=Random(), seed=[1, 2, 3])
    with pytest.raises(GenerateArgumentError, match="num_beams"):
        generate(gpt2, ["the"], sampler=Beam(2), num_return_sequences=3)


def test_log_probabilities_are_the_models_own() -> None:
    model = shared_model()
    logprobs = next_logprobs(model, [END, 0])
    (found,) = generate(
        model, ["a"], sampler=TopK(3, temperature=0.5), max_new_tokens=8, return_logprobs=True, return_prompt=False
    )
    wanted = [logprobs(found.token_ids[:n])[token] for n, token in enumerate(found.token_ids)]
    np.testing.assert_allclose(found.logprobs, wanted, atol=1e-4)
    assert found.score == pytest.approx(sum(wanted), abs=1e-3)


@pytest.mark.one_backend
def test_many_texts_at_once_have_their_own_log_probabilities_and_the_same_ids_without_them() -> None:
    model = shared_model()
    prompts = [[n % 3, *[n % 2] * (n % 4)] for n in range(17)]
    asked: dict[str, Any] = {"sampler": TopK(3), "max_new_tokens": 6, "seed": 2, "valid_utf8": False}
    found = [text for (text,) in generate_ids(model, prompts, **asked)]
    without = [text for (text,) in generate_ids(model, prompts, logprobs=False, **asked)]
    assert [text.token_ids for text in without] == [text.token_ids for text in found]
    for prompt, text in zip(prompts, found, strict=True):
        logprobs = next_logprobs(model, [END, *prompt])
        wanted = [logprobs(text.token_ids[:n])[token] for n, token in enumerate(text.token_ids)]
        np.testing.assert_allclose(text.logprobs, wanted, atol=1e-4)


@pytest.mark.one_backend
def test_different_prompts_share_no_random_numbers() -> None:
    """With the same numbers, texts of a nearly flat model would be alike."""
    model = shared_model()
    prompts = [[n % 4, n // 4] for n in range(16)]
    found = generate_ids(model, prompts, sampler=Random(temperature=1e6), max_new_tokens=12)
    assert len({several[0].token_ids for several in found}) > 12


@pytest.mark.one_backend
def test_a_prompt_that_was_read_is_not_read_again(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, beginning = engine_of(gpt2), "once upon a time the man and the other "
    wanted = [
        generate(gpt2, [beginning + more], sampler=Random(), max_new_tokens=9, seed=2)[0] for more in ("in", "", "a")
    ]
    prompt = Prompt(lambda: gpt2, beginning, {"sampler": Random(), "seed": 2, "max_new_tokens": 9})
    lengths = []
    read = type(engine).read
    monkeypatch.setattr(
        type(engine),
        "read",
        lambda self, chunk, cache: lengths.append(int(chunk.counts.sum())) or read(self, chunk, cache),
    )
    assert [prompt.generate(more) for more in ("in", "", "a")] == wanted
    assert "".join(prompt.stream("in")) == wanted[0]
    assert max(lengths) < 6
    longer = prompt.extend("and then the rest of it ")
    assert longer.generate("in") == generate(gpt2, [longer.text + "in"], sampler=Random(), max_new_tokens=9, seed=2)[0]
    engine.prompts.clear()


@pytest.mark.one_backend
def test_an_answer_was_read_while_it_was_written(gpt2: LanguageModel) -> None:
    """Up to its last token, which was not read; a stream that is closed as far as it was taken, at least."""
    engine, settings = engine_of(gpt2), {"sampler": Random(), "seed": 2, "max_new_tokens": 20}
    for beginning in ("once upon a time the man ", "and the other way "):
        prompt = Prompt(lambda: gpt2, beginning, settings)
        written = generate(gpt2, [beginning + "in"], **settings, return_logprobs=True)[0].token_ids
        begun = [END_OF_GPT2, *gpt2.tokenizer.encode(beginning + "in")]
        assert not engine.remembers([*begun, *written[:2]])
        if beginning.startswith("once"):
            prompt.generate("in")
            assert engine.remembers([*begun, *written[:-1]])
        else:
            pieces = prompt.stream("in", return_prompt=False)
            taken = "".join(next(pieces) for _ in range(5))
            pieces.close()
            assert taken
            assert engine.remembers([*begun, *written[:4]])
    engine.prompts.clear()


@pytest.mark.one_backend
def test_diverse_groups_begin_with_different_tokens(gpt2: LanguageModel) -> None:
    prompts = gpt2.tokenizer.encode_batch(["the", "in a"])
    plain = generate_ids(gpt2, prompts, sampler=Beam(2, 1.0, 2), max_new_tokens=8)
    alike = generate_ids(gpt2, prompts, sampler=Beam(4, 1.0, 4, num_beam_groups=2), max_new_tokens=8)
    diverse = Beam(4, 1.0, 4, num_beam_groups=4, diversity_penalty=1e6)
    for one, two, three in zip(
        plain, alike, generate_ids(gpt2, prompts, sampler=diverse, max_new_tokens=8), strict=True
    ):
        # Without a penalty each group finds what plain search finds.
        assert {text.token_ids for text in one} == {text.token_ids for text in two}
        assert len({text.token_ids[0] for text in three}) == 4


def test_an_engine_is_asked_for_by_name(gpt2: LanguageModel) -> None:
    assert engine_registry.resolve(engine_registry.resolve(gpt2)) is engine_registry.resolve(gpt2)
    with pytest.raises(GenerateArgumentError, match="engine='gpu'"):
        generate(gpt2, ["a"], sampler=Greedy(), engine="gpu")


@pytest.mark.one_backend
def test_a_closed_stream_does_no_more_work(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    run = JaxSession.run

    def counting(self: JaxSession, count: int, *rest: Any, **more: Any) -> Any:
        block = run(self, count, *rest, **more)
        steps.append(block.steps)
        return block

    monkeypatch.setattr(JaxSession, "run", counting)
    pieces = stream(gpt2, "the", sampler=Random(), max_new_tokens=120)
    assert next(pieces) == "the"
    assert not steps
    next(pieces)
    pieces.close()
    assert 0 < sum(steps) < 40
    assert "".join(stream(gpt2, "the", sampler=Random(), max_new_tokens=120)) != "the"
    assert sum(steps) > 120


@pytest.mark.one_backend
@pytest.mark.parametrize("most", [1, 3])
def test_a_text_does_not_depend_on_how_many_steps_are_taken_at_once(
    gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    settings: dict[str, Any] = {"sampler": TopP(0.9), "max_new_tokens": 20, "seed": 5, "stop": "e"}
    wanted = generate(gpt2, PROMPTS, **settings)
    run = JaxSession.run
    monkeypatch.setattr(
        JaxSession, "run", lambda self, steps, *rest, **more: run(self, min(steps, most), *rest, **more)
    )
    assert generate(gpt2, PROMPTS, **settings) == wanted


@pytest.mark.one_backend
def test_a_stop_string_cuts_what_a_search_found(gpt2: LanguageModel) -> None:
    for spec in (Beam(3), Contrastive(3)):
        (text,) = generate(gpt2, ["the"], sampler=spec, max_new_tokens=16, return_prompt=False)
        stop = text[len(text) // 2 :][:3]
        cut = generate(gpt2, ["the"], sampler=spec, max_new_tokens=16, return_prompt=False, stop=stop)
        assert cut == [text[: text.index(stop)]]


@pytest.mark.one_backend
def test_prompts_may_be_drawn_from_an_iterator(gpt2: LanguageModel) -> None:
    wanted = generate(gpt2, ["the", "in"], sampler=Greedy(), max_new_tokens=4)
    assert generate(gpt2, iter(["the", "in"]), sampler=Greedy(), max_new_tokens=4) == wanted
    assert generate(gpt2, ["the", "in"], sampler=Greedy(), max_new_tokens=4, seed=np.int64(3)) == wanted


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"prompts": 3}, "list of strings"),
        ({"stop": 3}, "stop=3"),
        ({"seed": "7"}, "seed='7'"),
        ({"seed": [1.5]}, "1.5"),
    ],
)
def test_what_is_no_argument_is_told(gpt2: LanguageModel, wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(GenerateArgumentError, match=what):
        generate(gpt2, **({"prompts": ["the"], "sampler": Random()} | wrong))


@pytest.mark.one_backend
def test_a_prompt_takes_what_a_pipeline_takes(gpt2: LanguageModel) -> None:
    prompt = Prompt(lambda: gpt2, "the ", {"sampler": Random(), "seed": 3})
    form, beams = "regex:pattern=the [xyz]{3}", Beam(3)
    assert re.fullmatch("the [xyz]{3}", prompt.generate("", constraint=form, max_new_tokens=20))
    assert "".join(prompt.stream("", constraint=form, max_new_tokens=20, sampler=None, seed=None)).startswith("the ")
    found = prompt.generate(iter(["in", "a"]), sampler=beams, max_new_tokens=5, num_return_sequences=2)
    assert found == generate(gpt2, ["the in", "the a"], sampler=beams, max_new_tokens=5, num_return_sequences=2)
    with pytest.raises(GenerateArgumentError, match="list of strings"):
        prompt.generate([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("make", "engine"), [(smallest_llama, JaxEngine), (tiny_gemma, KerasEngine), (tiny_qwen, KerasEngine)]
)
def test_other_families_write_keras_hubs_greedy_text_on_every_prompt_of_a_batch(make, engine) -> None:
    model = make()
    assert isinstance(engine_registry.resolve(model), engine)
    model.causal_lm.compile(sampler="greedy")
    prompts = ["the man", "a", "in the rain and"]
    ids = model.tokenizer.encode_batch(prompts)
    found = generate_ids(model, ids, sampler=Greedy(), max_length=32, valid_utf8=False)
    for prompt, (one,) in zip(prompts, found, strict=True):
        assert list(one.token_ids) == by_keras_hub(model, prompt, 32)
