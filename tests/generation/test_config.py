"""A `GenerationConfig` is checked once, says the same as arguments by name, and is kept with a pipeline."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.generation import config as configs

pytestmark = pytest.mark.one_backend


def test_a_type_checker_sees_exactly_the_names_of_the_config() -> None:
    assert set(configs.GenerationSettings.__annotations__) == set(configs.FIELDS)
    assert set(configs.IdsSettings.__annotations__) == set(configs.FIELDS) - {
        "allowed_special",
        "return_logprobs",
        "return_prompt",
    }
    for settings in (configs.GenerationSettings, configs.IdsSettings):
        hints = inspect.get_annotations(kg.GenerationConfig)
        for name in configs.taken(settings):
            assert settings.__annotations__[name].__forward_arg__ == hints[name]


@pytest.mark.parametrize("call", ["generate", "generate_to", "stream"])
def test_the_help_of_a_call_tells_each_setting_that_it_takes(call: str) -> None:
    method = getattr(kg.Pipeline, call)
    documentation = inspect.getdoc(method)
    assert documentation is not None
    for name in set(inspect.signature(method).parameters) - {"self"}:
        assert f"    {name}: " in documentation
    assert "**settings" not in documentation


def test_text_is_read_as_the_value_that_it_stands_for() -> None:
    written = kg.GenerationConfig(sampler="top_k:k=3", stop="x", seed=[1, 2], constraint="regex:pattern=a+")
    value = kg.GenerationConfig(sampler=kg.TopK(k=3), stop=("x",), seed=(1, 2), constraint=kg.Regex("a+"))
    assert written == value
    assert hash(written) == hash(value)
    assert repr(kg.GenerationConfig(max_new_tokens=8)) == "GenerationConfig(max_new_tokens=8)"


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 9, "max_new_tokens": 3},
        {"max_new_tokens": 0},
        {"batch_size": True},
        {"seed": -1},
        {"stop": ""},
        {"valid_utf8": 1},
        {"return_prompt": "no"},
        {"allowed_special": 3},
        {"allowed_special": [""]},
        {"num_return_sequences": 5, "sampler": "beam:num_beams=4"},
        {"temperature": 0.5},
    ],
    ids=str,
)
def test_a_wrong_setting_is_told_when_the_config_is_made(settings: dict[str, object]) -> None:
    with pytest.raises(kg.errors.GenerateArgumentError):
        kg.GenerationConfig(**settings)  # type: ignore[arg-type]


def test_of_two_lengths_the_one_that_is_given_by_name_counts() -> None:
    config = kg.GenerationConfig(max_length=40).override({"max_new_tokens": 4})
    assert config == kg.GenerationConfig(max_new_tokens=4)


@pytest.mark.nightly
def test_a_config_says_what_the_same_settings_say_by_name() -> None:
    settings = {"max_new_tokens": 6, "sampler": "random", "seed": 3, "return_prompt": False}
    by_name = kg.Pipeline(model="starter").generate("春", **settings)
    config = kg.GenerationConfig(**settings)
    assert kg.Pipeline(model="starter").generate("春", config) == by_name
    pipe = kg.Pipeline(model="starter", generation_config=config)
    assert pipe.sampler == kg.Random()
    assert pipe.generate("春") == "".join(pipe.stream("春")) == pipe.prompt("春").generate() == by_name
    assert len(pipe.generate("春", max_new_tokens=2)) <= len(by_name)
    assert pipe.generate("春", return_prompt=True) == "春" + by_name


def test_a_call_refuses_what_its_config_sets_and_it_does_not_take() -> None:
    with pytest.raises(kg.errors.GenerateArgumentError, match="num_return_sequences=2"):
        kg.Pipeline(model="starter").stream("春", kg.GenerationConfig(num_return_sequences=2))


def test_the_sampler_of_a_pipeline_is_given_once() -> None:
    with pytest.raises(kg.errors.ArgumentError, match="once"):
        kg.Pipeline(sampler="greedy", generation_config=kg.GenerationConfig(sampler="random"))


def test_a_saved_pipeline_keeps_its_config_and_an_older_one_has_none(tmp_path) -> None:
    config = kg.GenerationConfig(max_new_tokens=5, stop="。", sampler="top_p", constraint="verse_form:form=七言絕句")
    pipe = kg.Pipeline(model="starter", generation_config=config)
    pipe.save(tmp_path / "poet")
    loaded = kg.Pipeline.load(tmp_path / "poet")
    assert loaded.generation_config == config
    manifest = next(path for path in (tmp_path / "poet").glob("*.json") if "sampler" in path.read_text("utf-8"))
    said = json.loads(manifest.read_text("utf-8"))
    del said["generation_config"]  # as 0.1.0 wrote it
    said["tuner"]["arguments"] = {"epochs": 2, "csv": True, "tensorboard": True}  # the last two are no more
    manifest.write_text(json.dumps(said), "utf-8")
    older = kg.Pipeline.load(tmp_path / "poet")
    assert (older.generation_config, older.tuner) == (kg.GenerationConfig(sampler="top_p"), kg.FullTuner(epochs=2))
    assert "max_new_tokens=5" in repr(loaded)
    said["generation_config"] = {"max_new_tokens": "many"}
    manifest.write_text(json.dumps(said), "utf-8")
    with pytest.raises(kg.errors.ModelFormatError, match="generation_config"):
        kg.Pipeline.load(tmp_path / "poet")


def test_a_config_can_be_changed_into_another_but_not_in_place() -> None:
    config = kg.GenerationConfig(seed=1)
    assert dataclasses.replace(config, seed=2).seed == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2  # type: ignore[misc]


def test_the_seed_of_a_call_comes_before_the_samplers_own_and_that_before_the_pipelines() -> None:
    own, none = kg.Random(seed=7), kg.Random()
    pipe = kg.Pipeline(model="starter")

    def drawn(sampler: kg.Random, seed: int | None, *, pipelines: int = 1) -> dict[str, object]:
        pipe.sampler, pipe.seed = sampler, pipelines
        settings: dict[str, object] = {"max_new_tokens": 6} | ({} if seed is None else {"seed": seed})
        found = {
            "generate": pipe.generate("明月", **settings),
            "config": pipe.generate("明月", kg.GenerationConfig(**settings)),
            "stream": "".join(pipe.stream("明月", **settings)),
            "prompt": pipe.prompt("明月").generate(**settings),
        }
        assert len(set(found.values())) == 1, found
        return found

    by_seed = [drawn(none, seed) for seed in (1, 3, 7)]
    assert by_seed[0] != by_seed[1] != by_seed[2] != by_seed[0]
    assert drawn(own, 3) == by_seed[1]
    assert drawn(own, None) == drawn(own, None, pipelines=5) == by_seed[2]
    assert drawn(none, None) == by_seed[0]


CHANGES = {
    "max_length": 9,
    "max_new_tokens": 5,
    "sampler": "top_k:k=3",
    "stop": "x",
    "constraint": "regex:pattern=a+",
    "valid_utf8": False,
    "num_return_sequences": 2,
    "return_logprobs": True,
    "return_prompt": False,
    "allowed_special": "all",
    "seed": 3,
    "engine": "litert",
}


def test_a_killed_run_is_known_by_each_setting_on_which_its_texts_depend() -> None:
    from kerasgen.generation import jobs

    model, base = tiny_gpt2(), kg.GenerationConfig(sampler="greedy")
    assert set(CHANGES) == set(configs.FIELDS) - set(configs.SILENT)
    for name, value in CHANGES.items():
        changed = base.override({name: value})
        assert jobs.settings_told(model, changed) != jobs.settings_told(model, base), name
