"""A Llama goes the whole way: tuned with packing, saved, loaded, generating, and written in other programs' formats."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hub_tokenizers import llama3_tokenizer
from llamas import llama

import kerasgen as kg
from kerasgen.exporters.transformers import exporter as transformers
from kerasgen.models import live

pytestmark = pytest.mark.one_backend

PLACES, THINGS = ("sea", "hill", "春", "moon"), ("wind", "rain", "stars")
TEXTS = [f"the {a} and the {b} in 2013\n\n {a}" for a in PLACES for b in THINGS]
SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "batch_size": 2,
    "sequence_length": 64,
    "learning_rate": 0.05,
    "precision": "float32",
}
PROMPT = "the sea and"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> kg.Pipeline:
    """A live Llama with KerasHub's tokenizer of Llama 3, tuned by adapters."""
    import keras_hub

    tokenizer = llama3_tokenizer()
    preprocessor = keras_hub.models.Llama3CausalLMPreprocessor(tokenizer, sequence_length=128)
    causal_lm = keras_hub.models.Llama3CausalLM(backbone=llama().backbone, preprocessor=preprocessor)
    pipe = kg.Pipeline(TEXTS, causal_lm, tuner=kg.LoraTuner(rank=2, **SETTINGS), sampler="greedy", held_out=0.2)
    assert pipe.model.source.startswith(live.PREFIX)
    report = pipe.fit(verbose=0, directory=tmp_path_factory.mktemp("run"))
    alone = max(len(pipe.tokenizer.encode(text)) for text in TEXTS) / SETTINGS["sequence_length"]
    assert report.fill > 1.5 * alone  # for a row holds several documents
    assert report.trainable_parameters < report.parameters / 10
    return pipe


@pytest.fixture(scope="module")
def text(tuned: kg.Pipeline) -> str:
    return str(tuned.generate(PROMPT, max_new_tokens=16))


def test_what_is_saved_generates_the_same(tuned: kg.Pipeline, text: str, tmp_path: Path) -> None:
    again = kg.Pipeline.load(tuned.save(tmp_path / "saved"))
    assert again.generate(PROMPT, max_new_tokens=16) == text


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="it runs llama.cpp")
def test_llama_cpp_generates_the_same(tuned: kg.Pipeline, text: str, tmp_path: Path) -> None:
    artefact = tuned.export(tmp_path / "tuned.gguf")
    assert artefact.report["max_tokens"] == 128
    runtime = kg.load_artefact(artefact.path)
    assert runtime.generate(PROMPT, max_new_tokens=16) == text
    assert runtime.tokenizer.end_token_ids == tuned.tokenizer.end_token_ids  # two, as Llama 3 has
    assert len(runtime.tokenizer.end_token_ids) == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="it runs LiteRT")
def test_litert_generates_the_same(tuned: kg.Pipeline, text: str, tmp_path: Path) -> None:
    """A KerasHub tokenizer is written as the byte-level BPE that it is, with both of its end tokens."""
    artefact = tuned.export(
        tmp_path / "tuned.tflite", cache_length=64, prefill_lengths=(8,), decode_lengths=(), beams=0
    )
    runtime = kg.load_artefact(artefact.path, weight_cache=None)
    assert runtime.generate(PROMPT, max_new_tokens=16) == text
    assert runtime.tokenizer.end_token_ids == tuned.tokenizer.end_token_ids


@pytest.mark.slow
@pytest.mark.essential
def test_a_transformers_directory_generates_the_same_and_is_tuned_further(
    tuned: kg.Pipeline, text: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(transformers, "_prove_in_transformers", lambda *arguments: None)
    path = tuned.export(tmp_path / "hf", exporter="transformers").path
    pipe = kg.Pipeline(TEXTS, path, tuner=kg.FullTuner(**SETTINGS), sampler="greedy", held_out=0.2)
    assert pipe.generate(PROMPT, max_new_tokens=16) == text
    before = pipe.evaluate().bits_per_character
    report = pipe.fit(verbose=0, directory=tmp_path / "run")
    assert report.bits_per_character < before
    again = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert again.generate(PROMPT, max_new_tokens=16) == pipe.generate(PROMPT, max_new_tokens=16)
