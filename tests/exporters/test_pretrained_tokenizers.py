"""Artefacts of a model whose tokenizer only its `tokenizer.json` says: Qwen 3's kind, which normalizes a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_llama

import kerasgen as kg
from kerasgen.errors import ExportArgumentError
from kerasgen.generation import generate
from kerasgen.models.base import LanguageModel
from kerasgen.models.hub import Hub
from kerasgen.tokens.pretrained import PretrainedTokenizer

TEXTS = ("e\u0301 <think> a", "the  river 123", "昨夜", "<|im_start|>user")


def model_with(directory: Path) -> LanguageModel:
    """Random weights over the small tokenizer of a family."""
    tokenizer = PretrainedTokenizer.from_directory(directory)
    sizes: dict[str, Any] = {"num_layers": 1}
    return replace(tiny_llama(tokenizer.vocabulary_size, **sizes), tokenizer=tokenizer)


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.nightly
def test_a_transformers_directory_has_the_same_tokenizer(
    families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerasgen.exporters.transformers.exporter._prove_in_transformers", lambda *_: None)
    model = model_with(families / "qwen3")
    written = kg.TransformersExporter().export(model, tmp_path / "out")
    assert written.report["parity"]["tokenizers_equal"]
    again = Hub(str(tmp_path / "out")).load().tokenizer
    assert again == model.tokenizer
    assert again.encode_batch(TEXTS) == model.tokenizer.encode_batch(TEXTS)


@pytest.mark.one_backend
def test_a_sentencepiece_model_is_no_tokenizer_json(families: Path, tmp_path: Path) -> None:
    model = model_with(families / "llama_model")
    with pytest.raises(ExportArgumentError, match=r"no SentencePiece model.*tokenizer\.json"):
        kg.TransformersExporter().export(model, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("family", ["qwen3", "llama_model"])
def test_a_tflite_file_encodes_as_the_model(family: str, families: Path, tmp_path: Path) -> None:
    model = model_with(families / family)
    runtime = kg.TFLiteExporter(cache_length=128).export(model, tmp_path / "model.tflite").runtime
    assert runtime.tokenizer == model.tokenizer
    for prompt in (f"{model.tokenizer.end_token}e\u0301", "the  river"):
        settings = {"max_new_tokens": 6, "allowed_special": "all"}
        assert runtime.generate(prompt, **settings) == generate(model, [prompt], sampler=kg.Greedy(), **settings)[0]


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("family", ["qwen3", "llama_model"])
@pytest.mark.nightly
def test_a_saved_model_takes_texts_by_the_tokenizer_beside_it(family: str, families: Path, tmp_path: Path) -> None:
    """No graph holds these, so its own signatures are of ids, and what opens the artefact reads the file."""
    model = model_with(families / family)
    artefact = kg.SavedModelExporter(samplers=("greedy",), max_sequence_length=64).export(model, tmp_path / "saved")
    assert artefact.report["tokenizer_in_graph"] is False
    assert set(artefact.report["signatures"]) == {"greedy_ids", "greedy_ids_unmasked", "logits"}
    assert artefact.report["parity"]["tokenizer_equal"]
    assert artefact.runtime.tokenizer == model.tokenizer
    for prompt in (f"{model.tokenizer.end_token}e\u0301", "the  river"):
        settings = {"max_new_tokens": 6, "allowed_special": "all"}
        wanted = generate(model, [prompt], sampler=kg.Greedy(), **settings)[0]
        assert artefact.generate(prompt, **settings) == wanted


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("family", ["qwen3", "llama_model"])
def test_a_litert_lm_bundle_holds_the_tokenizer(family: str, families: Path, tmp_path: Path) -> None:
    pytest.importorskip("litert_lm_builder")
    model = model_with(families / family)
    artefact = kg.LiteRtLmExporter(cache_length=128).export(model, tmp_path / "model.litertlm")
    assert artefact.report["parity"]["tokenizer_equal"]
    assert artefact.report["parity"]["text_equal"]
    assert artefact.runtime.tokenizer == model.tokenizer
