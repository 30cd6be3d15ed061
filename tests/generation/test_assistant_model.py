"""An assistant model: texts of which it proposed tokens are those of the model alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from described import CONFIGS, SIZES, drawn
from tiny import tiny_gpt2, tiny_opt

import kerasgen as kg
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.jax_layout import prepare
from kerasgen.errors import ArgumentError, GenerateArgumentError
from kerasgen.generation import engine_registry, generate, generate_ids, stream
from kerasgen.generation.assistant import Assistant
from kerasgen.generation.config import GenerationConfig
from kerasgen.generation.jax_engine import JaxEngine
from kerasgen.generation.keras_engine import KerasEngine
from kerasgen.generation.prompt import Prompt
from kerasgen.generation.proposal_length import ProposalLength
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.lookahead import Beam
from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP

pytestmark = [pytest.mark.one_backend, pytest.mark.numerical]

PROMPTS = ["the man and the man and the man", "春 and the other", "a"]
DRAWN = TopK(k=4, temperature=0.7, repetition_penalty=1.1, seed=3)
FURTHER = [
    pytest.param(spec, marks=pytest.mark.slow)
    for spec in (Greedy(repetition_penalty=1.3), TopP(p=0.9), MinP(p=0.02, seed=6), Random(temperature=0.8, seed=7))
]
SAMPLERS = [Greedy(), DRAWN, *FURTHER]
DRAWN_LATER = pytest.param(DRAWN, marks=pytest.mark.slow)


def first_layers(model: LanguageModel, count: int) -> LanguageModel:
    """A model's first layers, with its tables and its last norm."""
    draft = tiny_gpt2(model.vocabulary_size, num_layers=count)
    values = {variable.path: np.asarray(variable.value) for variable in model.network.variables}
    for variable in draft.network.variables:
        variable.assign(values[variable.path])
    return draft


@pytest.fixture(scope="module")
def target() -> LanguageModel:
    return tiny_gpt2(num_layers=3)


@pytest.fixture(scope="module")
def part(target: LanguageModel) -> LanguageModel:
    return first_layers(target, 2)


@pytest.fixture(scope="module")
def stranger() -> LanguageModel:
    """A model that has nothing of the target: almost all that it proposes is wrong."""
    return tiny_gpt2(seed=9)


def ids_of(model: Any, spec: SamplerSpec, prompts: list[str] = PROMPTS, **settings: Any) -> list[Any]:
    encoded = model.tokenizer.encode_batch(prompts)
    return [text for (text,) in generate_ids(model, encoded, sampler=spec, **{"max_new_tokens": 40} | settings)]


@pytest.mark.parametrize("spec", SAMPLERS, ids=repr)
def test_ids_are_those_without(
    target: LanguageModel, part: LanguageModel, stranger: LanguageModel, spec: SamplerSpec
) -> None:
    wanted = ids_of(target, spec)
    for draft in (part, stranger):
        found = ids_of(target, spec, assistant_model=draft)
        assert [text.token_ids for text in found] == [text.token_ids for text in wanted]
        logprobs = [np.concatenate([text.logprobs for text in texts]) for texts in (found, wanted)]
        np.testing.assert_allclose(*logprobs, atol=1e-4)
        assert sum(text.proposed for text in found) > 0
        assert all(0 <= text.accepted <= text.proposed for text in found)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [DRAWN, TopP(p=0.9, temperature=0.5, seed=4), Random(temperature=2.0)], ids=repr)
def test_of_a_larger_vocabulary_the_likeliest_tokens_are_looked_at(spec: SamplerSpec) -> None:
    model = tiny_gpt2(700, num_layers=3)
    (wanted,), (found,) = (
        ids_of(model, spec, PROMPTS[:1], max_new_tokens=80, **settings)
        for settings in ({}, {"assistant_model": first_layers(model, 1)})
    )
    assert found.token_ids == wanted.token_ids
    assert found.proposed > 0


@pytest.fixture(scope="module")
def idle() -> LanguageModel:
    """A model whose layers after the first add nothing."""
    model = tiny_gpt2(num_layers=4)
    for layer in model.backbone.transformer_layers[1:]:
        for part in (layer._self_attention_layer._output_dense, layer._feedforward_output_dense):
            for variable in part.variables:
                variable.assign(np.zeros(variable.shape, np.float32))
    return model


@pytest.mark.parametrize("spec", [Greedy(), DRAWN_LATER, *FURTHER], ids=repr)
def test_a_draft_that_computes_the_same_is_right_always(idle: LanguageModel, spec: SamplerSpec) -> None:
    """Drawn tokens too: it draws by the same numbers. What is left are choices that are too near to take from the pass.

    There are more of these where nearly all tokens can be drawn, each with a small share.
    """
    found = ids_of(idle, spec, assistant_model=first_layers(idle, 1))
    assert [text.token_ids for text in found] == [text.token_ids for text in ids_of(idle, spec)]
    proposed, accepted = (sum(getattr(text, name) for text in found) for name in ("proposed", "accepted"))
    is_narrow = isinstance(spec, (Greedy, TopK))
    assert proposed > (50 if is_narrow else 20)
    assert accepted >= (0.95 if is_narrow else 0.5) * proposed


@pytest.mark.slow
def test_a_draft_that_is_always_wrong_is_asked_seldom(idle: LanguageModel) -> None:
    """One whose likeliest tokens are the model's least likely."""
    wrong = first_layers(idle, 1)
    for variable in wrong.backbone.layer_norm.variables:
        variable.assign(-variable.value)
    (text,) = ids_of(idle, Greedy(), PROMPTS[:1], max_new_tokens=90, assistant_model=wrong)
    assert text.token_ids == ids_of(idle, Greedy(), PROMPTS[:1], max_new_tokens=90)[0].token_ids
    assert text.accepted <= 2
    assert 0 < text.proposed <= 20


class Numbers:
    """A tokenizer that is asked for nothing but its numbers."""

    start_token_id = None
    end_token_id = pad_token_id = 0
    end_token_ids = (0,)
    vocabulary_size = SIZES["vocabulary_size"]

    def digest(self) -> str:
        return "numbers"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mistral", "gemma3_text", "llama_dynamic", "opt", "mixtral"])
def test_texts_longer_than_a_window_and_than_the_cache(name: str) -> None:
    def engine(config: DecoderConfig, layers: int) -> JaxEngine:
        weights = drawn(config)
        fewer = replace(
            config,
            num_layers=layers,
            attention=replace(config.attention, windows=config.attention.windows[:layers]),
            positions_by_layer=config.positions_by_layer[:layers],
        )
        return JaxEngine(cast(Any, Numbers()), fewer, prepare({**weights, "layers": weights["layers"][:layers]}))

    config = replace(CONFIGS[name], max_sequence_length=200)
    target, draft = engine(config, config.num_layers), engine(config, config.num_layers - 1)
    prompts = [[3, 4, 5], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]]
    for spec in (Greedy(), DRAWN):
        wanted, found = (
            generate_ids(target, prompts, sampler=spec, max_new_tokens=150, valid_utf8=False, **settings)
            for settings in ({}, {"assistant_model": draft})
        )
        assert [text.token_ids for (text,) in found] == [text.token_ids for (text,) in wanted]
        assert sum(text.proposed for (text,) in found) > 0


@pytest.mark.slow
def test_an_assistant_proposes_up_to_the_length_at_which_its_longrope_turns() -> None:
    """Here 16 tokens: a longer text would have to be read again by other factors, so the model goes on alone."""
    target, draft = (
        JaxEngine(cast(Any, Numbers()), config, prepare(drawn(config)))
        for config in (replace(CONFIGS[name], max_sequence_length=64) for name in ("llama", "phi3_held"))
    )
    settings: dict[str, Any] = {"sampler": Greedy(), "max_new_tokens": 40, "valid_utf8": False}
    with pytest.raises(GenerateArgumentError, match="LongRoPE"):
        generate_ids(draft, [[3, 4, 5]], **settings)
    ((wanted,),) = generate_ids(target, [[3, 4, 5]], **settings)
    ((found,),) = generate_ids(target, [[3, 4, 5]], assistant_model=draft, **settings)
    assert found.token_ids == wanted.token_ids
    assert 0 < found.proposed <= 14


@pytest.mark.slow
def test_up_to_the_last_position_of_the_model_and_past_the_drafts(target: LanguageModel) -> None:
    short = tiny_gpt2(num_layers=1, max_sequence_length=48)
    wanted, found = (
        ids_of(target, Greedy(), max_new_tokens=None, max_length=128, **settings)
        for settings in ({}, {"assistant_model": short})
    )
    assert [text.token_ids for text in found] == [text.token_ids for text in wanted]
    long = [PROMPTS[0] * 4]  # a prompt that the draft has no positions for
    (text,) = ids_of(target, Greedy(), long, max_new_tokens=20, assistant_model=short)
    assert text.token_ids == ids_of(target, Greedy(), long, max_new_tokens=20)[0].token_ids
    assert text.proposed == 0


@pytest.mark.parametrize("spec", [Greedy(), DRAWN_LATER], ids=repr)
def test_a_stream_ends_where_it_does_without(target: LanguageModel, part: LanguageModel, spec: SamplerSpec) -> None:
    (whole,) = generate(target, PROMPTS[:1], sampler=spec, max_new_tokens=40, return_prompt=False)
    settings: dict[str, Any] = {"sampler": spec, "max_new_tokens": 40, "stop": whole[9:12]}
    (wanted,) = generate(target, PROMPTS[:1], **settings)
    assert len(wanted) < len(PROMPTS[0] + whole)
    assert "".join(stream(target, PROMPTS[0], assistant_model=part, **settings)) == wanted


def test_a_text_ends_at_its_end_token(target: LanguageModel, part: LanguageModel) -> None:
    (whole,) = ids_of(target, Greedy(), PROMPTS[:1])
    last = next(n for n, token in enumerate(whole.token_ids) if n > 5 and token not in whole.token_ids[:n])
    engine = cast(JaxEngine, engine_registry.resolve(target)).ending_at(whole.token_ids[last])
    (text,) = ids_of(engine, Greedy(), PROMPTS[:1], assistant_model=part)
    assert text.token_ids == whole.token_ids[: last + 1]
    assert text.finished


def test_a_prompt_goes_on_after_a_text_with_an_assistant(target: LanguageModel, part: LanguageModel) -> None:
    """What is remembered of a text is what one token a pass reads."""
    settings: dict[str, Any] = {"sampler": "greedy", "max_new_tokens": 30}
    texts = []
    for more in ({}, {"assistant_model": part}):
        engine_registry.resolve(target).prompts.clear()  # type: ignore[attr-defined]
        prompt = Prompt(lambda: target, PROMPTS[0], settings)
        written = prompt.generate(**more)
        longer = prompt.extend(written[len(PROMPTS[0]) :])
        texts.append([written, longer.generate(" and", max_new_tokens=20)])
    assert texts[0] == texts[1]


def test_another_vocabulary_is_refused(target: LanguageModel) -> None:
    """One of another size, and one of the same size that has other tokens."""
    for other, what in ((tiny_gpt2(301), "301 tokens where"), (tiny_opt(300), "token 0 is")):
        with pytest.raises(GenerateArgumentError, match=what):
            ids_of(target, Greedy(), assistant_model=other)


def test_what_makes_no_sense_is_refused(target: LanguageModel, part: LanguageModel) -> None:
    for settings, what in (
        ({"assistant_model": part, "prompt_lookup_num_tokens": 3}, "Received both"),
        ({"num_assistant_tokens": 3}, "without an assistant_model"),
        ({"assistant_model": part, "num_assistant_tokens": 0}, "num_assistant_tokens"),
        ({"assistant_model": 7}, "must be a Pipeline"),
        ({"assistant_model": ""}, "must be a Pipeline"),
        ({"assistant_model": kg.Pipeline}, "must be a Pipeline"),
    ):
        with pytest.raises(GenerateArgumentError, match=what):
            GenerationConfig(**settings)
    for spec in (Beam(2), Greedy(bad_words=("e",)), Greedy(no_repeat_ngram_size=2)):
        with pytest.raises(GenerateArgumentError, match="assistant_model"):
            ids_of(target, spec, assistant_model=part)
    with pytest.raises(GenerateArgumentError, match="must be a Pipeline"):
        ids_of(target, Greedy(), assistant_model=SimpleNamespace(tokenizer=target.tokenizer))
    with pytest.raises(GenerateArgumentError, match="a constraint decides"):
        ids_of(target, Greedy(), ["a"], assistant_model=part, constraint="regex:pattern=[a-z ]+")


def test_an_engine_that_first_writes_an_artefact_is_refused_before_it_does(target: LanguageModel) -> None:
    class Writing:
        def engine(self, model: LanguageModel, *, longest: int) -> Any:
            raise AssertionError("it was asked to")

    for settings in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": target}):
        with pytest.raises(GenerateArgumentError, match="needs JAX decoding"):
            ids_of(target, Greedy(), engine=Writing(), **settings)


def test_a_path_is_the_address_of_a_directory() -> None:
    assert GenerationConfig(assistant_model=Path("small")).assistant_model == f".{os.sep}small"
    assert GenerationConfig(assistant_model=Path("models", "small")).assistant_model == f"models{os.sep}small"


def test_who_proposes_is_replaced_by_who_is_given() -> None:
    lookup = GenerationConfig(prompt_lookup_num_tokens=3)
    assisted = GenerationConfig(assistant_model="starter", num_assistant_tokens=2)
    assert lookup.override({"assistant_model": "starter", "num_assistant_tokens": 2}) == assisted
    assert assisted.override({"prompt_lookup_num_tokens": 3}) == lookup
    assert assisted.override({"assistant_model": None}) == GenerationConfig()
    assert assisted.override({"assistant_model": "smollm2"}).num_assistant_tokens == 2


def test_what_keras_decodes_neither_checks_nor_proposes(target: LanguageModel, part: LanguageModel) -> None:
    with pytest.raises(GenerateArgumentError, match="checks one token at a time"):
        ids_of(KerasEngine(target), Greedy(), assistant_model=part)
    with pytest.raises(GenerateArgumentError, match="a model that JAX decodes"):
        ids_of(target, Greedy(), assistant_model=KerasEngine(part))


def test_a_pipeline_takes_a_pipeline_or_an_address() -> None:
    """The starter helps itself, whose proposals are all right."""
    pipe, settings = kg.Pipeline(model="starter", sampler="greedy"), {"max_new_tokens": 6}
    wanted = pipe.generate(["春"], **settings)
    for assistant_model in ("starter", kg.Pipeline(model="starter")):
        texts = pipe.generate(["春"], return_logprobs=True, assistant_model=assistant_model, **settings)
        assert [text.text for text in texts] == wanted
        assert all(text.accepted == text.proposed > 0 for text in texts)


@pytest.mark.slow
def test_the_lines_of_a_file_say_how_many_were_proposed(tmp_path: Path) -> None:
    pipe, settings = kg.Pipeline(model="starter", sampler="greedy"), {"max_new_tokens": 16}
    lines = []
    for name, assistant_model in (("without", None), ("with", "starter")):
        path = pipe.generate_to(
            tmp_path / name, ["春"], return_logprobs=True, assistant_model=assistant_model, **settings
        )
        lines.append(json.loads(path.read_text(encoding="utf-8")))
    assert lines[0].keys() ^ lines[1].keys() == {"proposed", "accepted"}
    assert lines[0]["token_ids"] == lines[1]["token_ids"]
    assert lines[1]["accepted"] == lines[1]["proposed"] > 0


def test_a_saved_pipeline_names_its_assistant_and_holds_none(tmp_path: Path) -> None:
    config = GenerationConfig(assistant_model="starter", num_assistant_tokens=3)
    pipe = kg.Pipeline(model="starter", generation_config=config)
    assert kg.Pipeline.load(pipe.save(tmp_path / "named")).generation_config.assistant_model == "starter"
    pipe.generation_config = pipe.generation_config.override({"assistant_model": kg.Pipeline(model="starter")})
    with pytest.raises(ArgumentError, match="by its address"):
        pipe.save(tmp_path / "held")


def test_the_number_of_tokens_follows_from_how_often_they_are_right() -> None:
    pace = ProposalLength(8, cost=0.1, least=1.05, prior=(3.0, 1.0))
    assert pace.width() > 1
    for _ in range(8):
        pace.observe(0, 1)
    assert pace.width() == 0
    for _ in range(8):
        pace.observe(8, 0)
    assert pace.width() == 8
    assert ProposalLength(8, cost=1.0, least=1.05, prior=(99.0, 1.0)).width() == 0  # as dear as the model: nothing pays
    assert not Assistant.looks


def test_however_many_may_be_proposed_their_number_is_found_at_once() -> None:
    several, countless = (ProposalLength(most, cost=0.0, least=1.05, prior=(20.0, 1.0)) for most in (64, 10**9))
    assert several.width() == countless.width()
    assert 0 < several.width() < 64
