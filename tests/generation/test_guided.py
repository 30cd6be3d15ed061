"""Whatever chooses the tokens, every text has the form that was asked for, and a file's texts are those of a list."""

from __future__ import annotations

import json
import re

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.constraints.base import Constraint
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import generate, jobs, stream
from kerasgen.models.base import LanguageModel

pytest.importorskip("outlines_core", reason="a regular expression is an extra: kerasgen[regex]")

pytestmark = pytest.mark.one_backend

FORM = kg.Regex("[jqvxz]{2}(-[jqvxz]{2}){1,3}!")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_gpt2(num_layers=1, hidden_dim=16)


@pytest.mark.parametrize(
    "sampler",
    [
        "greedy",
        "random",
        "top_k:k=3",
        "top_p:p=0.5",
        "random:no_repeat_ngram_size=1",
        "random:bad_words=!,repetition_penalty=1.5",
        "beam:num_beams=3",
    ],
)
def test_every_text_has_the_form(model, sampler):
    """A form comes before what the sampler excludes, even where nothing else would be left."""
    for text in generate(model, ["", "j", "jq-v", ""], sampler=sampler, constraint=FORM, max_new_tokens=40, seed=3):
        assert re.fullmatch(FORM.pattern, text)


def test_every_beam_and_every_draw_has_the_form(model):
    for sampler in ("random", kg.Beam(num_beams=4)):
        (texts,) = generate(model, ["j"], sampler=sampler, constraint=FORM, max_new_tokens=40, num_return_sequences=3)
        assert len(texts) == 3
        assert all(re.fullmatch(FORM.pattern, text) for text in texts)


@pytest.mark.parametrize("stop", [None, "-", "v"])
@pytest.mark.parametrize("prompt", ["", "j", "jq-vx"])
def test_a_stream_is_the_same_text(model, prompt, stop):
    """A stop string ends it before the form is complete."""
    settings = {"sampler": "random", "constraint": FORM, "max_new_tokens": 40, "seed": 5, "stop": stop}
    assert "".join(stream(model, prompt, **settings)) == generate(model, [prompt], **settings)[0]


def test_a_form_is_complete_when_the_limit_comes(model):
    """The fewest tokens leave no choice of length; one fewer is an error before any work."""
    unbounded = kg.Regex("[jqvxz]{3,}!")
    fewest = 4
    for text in generate(model, [""] * 5, sampler="random", constraint=unbounded, max_new_tokens=fewest):
        assert re.fullmatch("[jqvxz]{3}!", text)
    for text in generate(model, [""] * 5, sampler="random", constraint=unbounded, max_new_tokens=9):
        assert re.fullmatch("[jqvxz]{3,8}!", text)
    with pytest.raises(GenerateArgumentError, match="4 at least"):
        generate(model, ["", ""], sampler="random", constraint=unbounded, max_new_tokens=fewest - 1)


def test_a_prompt_that_can_not_have_the_form_is_told_before_any_work(model, monkeypatch):
    monkeypatch.setattr("kerasgen.generation.engine_registry.resolve", lambda *_: pytest.fail("the work had begun"))
    prompts = [*["j"] * 50, "j!"]
    with pytest.raises(GenerateArgumentError, match="'j!'"):
        generate(model, prompts, sampler="random", constraint=FORM, max_new_tokens=20)
    with pytest.raises(kg.errors.UnknownNameError, match="No constraint is called"):
        generate(model, ["j"], sampler="random", constraint="[jqvxz]", max_new_tokens=20)


def test_only_what_follows_the_prompt_may_be_constrained(model):
    form = kg.Regex("[jqvxz]{3}", whole_text=False)
    (text,) = generate(model, ["!!"], sampler="random", constraint=form, max_new_tokens=20)
    assert re.fullmatch("!![jqvxz]{3}", text)


def test_a_text_does_not_depend_on_its_batch_under_a_form(model):
    prompts = ["", "j", "jq-", "q", "", "vv"]
    settings = {"sampler": "random", "constraint": FORM, "max_new_tokens": 30, "seed": 9}
    assert generate(model, prompts, batch_size=1, **settings) == generate(model, prompts, batch_size=4, **settings)


@pytest.fixture
def prompts() -> list[str]:
    return [["j", "q", "jq", ""][n % 4] for n in range(22)]


def _write(model, path, prompts, **more):
    settings = {"sampler": "random", "max_new_tokens": 6, "seed": 4, "chunk_size": 5, "batch_size": 3}
    jobs.generate_to(model, path, prompts, **(settings | more))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_holds_what_generate_returns_whatever_the_chunks(model, tmp_path, prompts):
    """A prompt that comes again, in another chunk as well, gets another draw."""
    expected = generate(model, prompts, sampler="random", max_new_tokens=6, seed=4)
    assert len(set(expected)) > 12
    for size in (5, 100):
        lines = _write(model, tmp_path / f"{size}.jsonl", prompts, chunk_size=size)
        assert [line["text"] for line in lines] == expected
        assert [line["index"] for line in lines] == list(range(len(prompts)))
        assert [line["prompt"] for line in lines] == prompts


def test_a_killed_run_goes_on_to_the_same_file(model, tmp_path, prompts, monkeypatch):
    whole = _write(model, tmp_path / "whole.jsonl", prompts)
    calls = 0

    def dying(*arguments, **settings):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return generate(*arguments, **settings)

    monkeypatch.setattr(jobs, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        _write(model, tmp_path / "texts.jsonl", prompts)
    with pytest.raises(GenerateArgumentError, match="other settings"):
        _write(model, tmp_path / "texts.jsonl", prompts, seed=5)
    assert _write(model, tmp_path / "texts.jsonl", iter(prompts)) == whole
    assert calls == 3 + 3


def test_an_error_names_the_prompt_by_its_place_among_all(model, tmp_path):
    with pytest.raises(GenerateArgumentError, match="Prompt 6 has"):
        _write(model, tmp_path / "texts.jsonl", ["j"] * 6 + ["j q " * 200])


def test_a_line_holds_what_was_asked_for(model, tmp_path):
    several = _write(model, tmp_path / "several.jsonl", ["j", "q"], num_return_sequences=2)
    assert (
        several[1]["texts"]
        == generate(model, ["j", "q"], sampler="random", max_new_tokens=6, seed=4, num_return_sequences=2)[1]
    )
    (one,) = _write(model, tmp_path / "logprobs.jsonl", ["j"], return_logprobs=True, constraint=FORM, max_new_tokens=30)
    assert re.fullmatch(FORM.pattern, one["text"])
    assert len(one["logprobs"]) == len(one["token_ids"])
    assert one["finished"]


def test_another_model_does_not_go_on_with_it(model):
    assert jobs.fingerprint(model) == jobs.fingerprint(model)
    assert jobs.fingerprint(model) != jobs.fingerprint(tiny_gpt2(seed=1, num_layers=1, hidden_dim=16))


def test_the_pipeline_takes_a_form_by_name(monkeypatch, model, tmp_path):
    pipe = kg.Pipeline(model="starter", sampler="random")
    pipe._model = model
    assert isinstance(kg.constraints.create("regex:pattern=[jqvxz]{4}"), Constraint)
    text = pipe.generate("j", constraint="regex:pattern=[jqvxz]{4}", max_new_tokens=9)
    assert re.fullmatch("[jqvxz]{4}", text)
    assert "".join(pipe.stream("j", constraint=kg.Regex("[jqvxz]{4}"), max_new_tokens=9)) == text
    path = pipe.generate_to(tmp_path / "texts.jsonl", ["j"], constraint="regex:pattern=[jqvxz]{4}", max_new_tokens=9)
    assert json.loads(path.read_text())["text"] == text
    with pytest.raises(kg.errors.UnknownNameError):
        pipe.generate("j", constraint="verse")
