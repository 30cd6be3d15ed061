"""`engine="litert"`: a model in memory is decoded from an artefact that is written once, and writes the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from in_threads import answers_are_those_of_one_thread
from tiny import roughen, tiny_gpt2, tiny_llama, tiny_opt
from toys import tiny_gemma

import kerasgen as kg
from kerasgen.errors import GenerateArgumentError, UnknownNameError
from kerasgen.exporters.tflite import engine as litert_engine
from kerasgen.generation import api

pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
pytestmark = pytest.mark.one_backend

MAKERS = {"gpt2": tiny_gpt2, "opt": tiny_opt, "llama": tiny_llama, "gemma": tiny_gemma}
PROMPTS = ["the sand", "春 and then the", "a"]


@dataclass(frozen=True)
class Tiny(kg.ModelSource):
    family: str

    def load(self) -> kg.LanguageModel:
        return MAKERS[self.family]()


def pipeline(family: str, cache) -> kg.Pipeline:
    return kg.Pipeline(model=Tiny(family), cache=cache)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def gpt2(cache):
    return pipeline("gpt2", cache)


def artefacts(cache) -> list:
    return sorted((cache / "engines").glob("*.tflite"))


@pytest.mark.parametrize("family", ["gpt2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("opt", "llama"))])
@pytest.mark.nightly
def test_the_texts_are_those_of_the_keras_engine_whatever_chooses(cache, gpt2, family):
    pipe = gpt2 if family == "gpt2" else pipeline(family, cache)
    for sampler in ("top_p:p=0.9", "beam:num_beams=3"):
        settings = {"sampler": sampler, "max_new_tokens": 12, "seed": 5}
        several = PROMPTS[:2]
        assert pipe.generate(several, engine="litert", **settings) == pipe.generate(several, engine="keras", **settings)


def test_a_stream_is_the_same_text_and_a_prompt_takes_the_engine_too(gpt2):
    settings = {"sampler": "top_k:k=5", "max_new_tokens": 30, "seed": 2, "stop": ["an"]}
    for prompt in PROMPTS:
        wanted = gpt2.generate(prompt, engine="keras", **settings)
        assert "".join(gpt2.stream(prompt, engine="litert", **settings)) == wanted
        assert gpt2.prompt(prompt[:3]).generate(prompt[3:], engine="litert", **settings) == wanted


SHORT = {"sampler": "greedy", "max_new_tokens": 6, "engine": "litert:threads=1"}


def test_one_artefact_serves_every_call_and_process(gpt2, cache, monkeypatch):
    first = gpt2.generate("the", **SHORT)
    monkeypatch.setattr(litert_engine, "_export", None)  # would be called where an artefact is missing
    assert gpt2.generate("the", **SHORT) == first
    assert pipeline("gpt2", cache).generate("the", **SHORT) == first


@pytest.mark.slow
@pytest.mark.nightly
def test_new_weights_have_an_artefact_of_their_own_and_a_damaged_one_is_written_again(gpt2, tmp_path):
    first = gpt2.generate("the", **SHORT)
    pipe = pipeline("gpt2", tmp_path)
    assert pipe.generate("the", **SHORT) == first
    (written,) = artefacts(tmp_path)
    roughen(pipe.model.backbone, seed=9)
    assert pipe.generate("the", **SHORT) == pipe.generate("the", **SHORT | {"engine": "keras"}) != first
    assert len(artefacts(tmp_path)) == 2
    written.write_bytes(written.read_bytes()[:100])
    assert pipeline("gpt2", tmp_path).generate("the", **SHORT) == first


def test_int8_is_taken_when_it_is_asked_for_alone(tmp_path, monkeypatch):
    class AskedError(Exception):
        pass

    def export(model, source, length, path):
        raise AskedError(source.quantize)

    monkeypatch.setattr(litert_engine, "_export", export)
    pipe = pipeline("gpt2", tmp_path)
    for engine in ("auto", "keras"):
        pipe.generate("the", sampler="greedy", max_new_tokens=2, engine=engine)
    for engine, quantize in (("litert", "float32"), ("litert:quantize=int8", "int8")):
        with pytest.raises(AskedError, match=quantize):
            pipe.generate("the", sampler="greedy", max_new_tokens=2, engine=engine)


def test_a_long_text_has_a_cache_as_long_as_it_needs():
    model = tiny_gpt2(max_sequence_length=1000)
    lengths = [litert_engine._cache_length(model, longest) for longest in (1, 256, 257, 600)]
    assert lengths == [256, 256, 512, 1000]
    assert litert_engine._cache_length(tiny_gpt2(), 1) == 128


def test_every_weight_counts_for_an_artefacts_name(tmp_path):
    """Even a change that the quick fingerprint of a model can't see."""
    model = tiny_gpt2(hidden_dim=32, vocabulary_size=300)
    source = litert_engine.LiteRt(cache=tmp_path)
    before = litert_engine._path(model, source, 128)
    table = model.backbone.token_embedding.embeddings
    changed = np.array(table)
    changed[7, 5] += 1e-3
    table.assign(changed)
    assert litert_engine._path(model, source, 128) != before


def test_what_can_not_be_done_is_told_before_any_work(tmp_path):
    pipe = pipeline("gemma", tmp_path)
    with pytest.raises(GenerateArgumentError, match="Gemma"):
        pipe.generate("the", sampler="greedy", max_new_tokens=2, engine="litert")
    assert pipe.generate("the", sampler="greedy", max_new_tokens=2)
    for engine, what in (
        ("litert:quantize=int2", "int2"),
        ("litert:threads=0", "threads"),
        ("litert:speed=9", "speed"),
        ("tflite", "litert"),
        (7, "name"),
    ):
        with pytest.raises((GenerateArgumentError, UnknownNameError), match=what):
            pipe.generate("the", sampler="greedy", max_new_tokens=2, engine=engine)
    model = MAKERS["gpt2"]()
    with pytest.raises(GenerateArgumentError, match="Pipeline"):
        api.generate(model, ["a"], sampler="greedy", engine="litert")


def test_eight_threads_get_the_texts_that_one_gets_and_one_of_them_writes_the_artefact(cache, gpt2):
    calls = [{"prompts": text, "sampler": "top_k:k=5", "seed": seed} for seed, text in enumerate(PROMPTS[:3])]
    settings = {"engine": "litert", "max_new_tokens": 8}
    wanted = {repr(call): gpt2.generate(**call, **settings) for call in calls}
    before = artefacts(cache)
    again = pipeline("gpt2", cache)
    assert again.model.source == gpt2.model.source
    answers_are_those_of_one_thread(
        lambda call: wanted[repr(call)], calls, rounds=2, anew=lambda: lambda call: again.generate(**call, **settings)
    )
    assert artefacts(cache) == before
