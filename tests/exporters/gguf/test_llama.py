"""A Llama's GGUF file: rotary positions, grouped heads and an output layer as llama.cpp has them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import lzma
from dataclasses import replace

import byte_level
import numpy as np
import pytest
from hub_tokenizers import gemma_tokenizer
from llamas import LONGEST, llama
from tiny import tiny_gpt2, tiny_llama

import kerasgen as kg
from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.decoder.rotary_scaling import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling
from kerasgen.exporters.gguf import file_format as file
from kerasgen.generation import generate_ids
from kerasgen.models import architectures
from kerasgen.models.architectures import gguf_settings as settings
from kerasgen.models.architectures import keras_weights
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import Pretokenization

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.one_backend

needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="it runs llama.cpp: pip install 'kerasgen[llamacpp]'"
)


@needs_llama_cpp
@pytest.mark.parametrize(("kind", "tied"), [("llama3", False), ("smollm2", True)])
def test_llama_cpp_computes_scaled_positions_and_either_output_layer(kind: str, tied: bool, tmp_path) -> None:
    model = llama(kind, tied=tied)
    artefact = kg.GgufExporter().export(model, tmp_path / "llama.gguf")
    parity = artefact.report["parity"]
    found = parity["llama_cpp"]
    assert parity["greedy_equal"]
    for name in ("ids_equal", "text_equal", "greedy_equal", "together_equal"):
        assert found[name]
    assert found["same_likeliest"] == 1
    assert found["kl_nats_per_token"] < 1e-9
    assert artefact.report["max_tokens"] == LONGEST
    reader = gguf.GGUFReader(artefact.path)
    assert ("output.weight" in {tensor.name for tensor in reader.tensors}) is not tied
    says = {key: field.contents() for key, field in reader.fields.items() if key.startswith("llama.")}
    assert says["llama.attention.head_count"] == 2 * says["llama.attention.head_count_kv"] == 4
    assert says["llama.rope.dimension_count"] == 8
    assert says["llama.rope.freq_base"] == 1000
    # The file is opened and generates the model's ids.
    prompts = [model.tokenizer.encode("the sand and the sea")]
    wanted = generate_ids(model, prompts, sampler="greedy", max_new_tokens=12)[0][0].token_ids
    assert kg.load_artefact(artefact.path).generate_ids(prompts, max_new_tokens=12) == [list(wanted)]


@needs_llama_cpp
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q5_0", "Q4_0"])
def test_llama_cpp_computes_a_rounded_llama(dtype, tmp_path) -> None:
    artefact = kg.GgufExporter(dtype=dtype, max_sequence_length=64).export(tiny_llama(), tmp_path / "llama.gguf")
    parity = artefact.report["parity"]
    assert parity["greedy_equal"]
    assert parity["weights_equal"]
    assert parity["llama_cpp"]["ids_equal"]
    assert artefact.report["max_tokens"] == 64


def described(positions: RotaryPositions) -> tuple[DecoderConfig, dict]:
    model = tiny_llama(num_layers=1)
    architecture = architectures.of_backbone("LlamaBackbone")
    config = replace(keras_weights.describe(architecture, model.backbone), positions=positions, max_sequence_length=64)
    return config, keras_weights.read(architecture, model.backbone)


@needs_llama_cpp
@pytest.mark.slow
@pytest.mark.parametrize("kind", byte_level.KINDS)
def test_llama_cpp_gives_real_texts_the_tokenizers_ids(kind: str, tmp_path, shared_data) -> None:
    model = llama(kind, num_layers=1)
    artefact = kg.GgufExporter().export(model, tmp_path / "llama.gguf")
    runtime = kg.load_artefact(artefact.path)
    with lzma.open(shared_data / "tifu_posts_2012_2013.jsonl.xz", "rt", encoding="utf-8") as lines:
        posts = [json.loads(line)["selftext"] for _, line in zip(range(200), lines, strict=False)]
    for post in posts:
        assert runtime._server.tokenize(post, start=False) == model.tokenizer.encode(post)
    assert runtime.tokenizer.encode_batch(posts) == model.tokenizer.encode_batch(posts)


@pytest.mark.parametrize("scaling", [None, LinearScaling(4.0), Llama3Scaling(8.0, 1.0, 4.0, 32)])
def test_what_a_file_says_is_read_back(scaling, tmp_path) -> None:
    config, weights = described(RotaryPositions(base=500.0, scaling=scaling))
    architecture = architectures.of_backbone("LlamaBackbone")
    file.write(tmp_path / "x.gguf", architecture, config, weights, tiny_llama().tokenizer, dtype="F32")
    _, found, _, _ = file.read(tmp_path / "x.gguf")
    assert found == settings.stored(architecture, config)
    tokens = list(range(40))
    here, there = (NumpyDecoder(one, weights).read(tokens) for one in (config, found))
    np.testing.assert_allclose(here, there, atol=1e-5 * np.abs(here).max())


@pytest.mark.parametrize("scaling", [DynamicScaling(2.0, 16), YarnScaling(4.0, 16)])
def test_positions_that_a_file_has_no_place_for_are_said(scaling) -> None:
    config, _ = described(RotaryPositions(scaling=scaling))
    architecture = architectures.named("llama")
    with pytest.raises(kg.errors.ExportArgumentError, match=type(scaling).__name__):
        settings.keys(architecture, config)


def test_a_gpt2_has_its_own_positions(tmp_path) -> None:
    with pytest.raises(kg.errors.ExportArgumentError, match=r"128 positions. Received: 64"):
        kg.GgufExporter(max_sequence_length=64).export(tiny_gpt2(), tmp_path / "x.gguf")


@pytest.mark.parametrize("wrong", [0, True, 1.5, 4])
def test_a_text_is_long_enough_to_be_compared(wrong, tmp_path) -> None:
    with pytest.raises(kg.errors.ExportArgumentError, match="Received"):
        kg.GgufExporter(max_sequence_length=wrong).export(tiny_llama(), tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_llama_cpp_has_no_name_for_is_refused(tmp_path) -> None:
    model = llama()
    cut = Pretokenization(r"\s+", single_digits=True)
    tokenizer = ByteLevelBPE(
        model.tokenizer.vocabulary, model.tokenizer.merges, end_token=byte_level.END, pretokenization=cut
    )
    with pytest.raises(kg.errors.ExportArgumentError, match="single_digits=True"):
        kg.GgufExporter().export(dataclasses.replace(model, tokenizer=tokenizer), tmp_path / "x.gguf")


def test_a_sentencepiece_tokenizer_is_refused_with_a_way_out(tmp_path) -> None:
    tokenizer = KerasHubTokenizer(gemma_tokenizer())
    model = dataclasses.replace(llama(), tokenizer=tokenizer)
    with pytest.raises(kg.errors.ExportArgumentError, match=r"no SentencePiece.*'preset'"):
        kg.TransformersExporter().export(model, tmp_path / "x")


@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_a_sentencepiece_model_is_llama_cpp_s_own_kind(dummy_prefix: bool, tmp_path) -> None:
    """Its pieces, scores and types come back as a tokenizer of the same ids, which llama.cpp's are where it runs."""
    tokenizer = KerasHubTokenizer(gemma_tokenizer(dummy_prefix=dummy_prefix))
    model = dataclasses.replace(tiny_llama(tokenizer.vocabulary_size, num_layers=1), tokenizer=tokenizer)
    artefact = kg.GgufExporter(max_sequence_length=64).export(model, tmp_path / "llama.gguf")
    assert artefact.report["parity"]["ids_equal"]
    _, _, _, vocabulary = file.read(artefact.path)
    again = vocabulary.tokenizer()
    for text in ("the moon", " the  river", "昨夜 🚀", "", "<bos>"):
        assert again.encode(text) == tokenizer.encode(text)
        assert again.decode(again.encode(text)) == text
    assert again.start_token_id == tokenizer.start_token_id
    if artefact.report["parity"]["llama_cpp"] is not None:
        assert artefact.report["parity"]["llama_cpp"]["ids_equal"]
