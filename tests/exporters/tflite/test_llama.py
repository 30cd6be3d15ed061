"""A Llama's TFLite artefact: rotary positions, caches of shared heads and an output layer of its own, on LiteRT."""

from __future__ import annotations

import pytest
from tiny import GPT2_END, tiny_llama, tiny_vocabulary

import kerasgen as kg
from kerasgen.decoder.numpy import NumpyEngine
from kerasgen.exporters.tflite.quantize import read
from kerasgen.generation import generate_ids
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import LLAMA3_PATTERN, Pretokenization

pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
pytestmark = pytest.mark.one_backend

# Llama 3.2's kind: tied, with frequencies scaled for texts longer than those of the training.
SCALED = {
    "tie_word_embeddings": True, "rope_frequency_adjustment_factor": 8.0, "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0, "rope_pretraining_sequence_length": 32,
}  # fmt: skip
SMALL = {"cache_length": 64, "prefill_lengths": (8, 16)}
# Of the model's untrained logits rounding moves many; what is tested is that signatures agree.
LOOSE = {"most_divergence": 9, "least_agreement": 0, "most_logit_difference": 99, "most_loss_increase": 9}


def ids(engine, prompts, sampler, **settings):
    found = generate_ids(engine, prompts, sampler=sampler, max_new_tokens=24, seed=7, **settings)
    return [[list(one.token_ids) for one in several] for several in found]


def test_ids_of_every_loop_are_those_of_the_model_in_builtin_operators(tmp_path):
    """Greedy and top-k by a shortlist of its own output layer; beams and several texts in one cache.

    Its texts end at any of two tokens and are cut in a way of its own, as Llama 3's.
    """
    vocabulary, merges = tiny_vocabulary(300, last=("<|eot|>", GPT2_END))
    special = {"start_token": GPT2_END, "end_token": GPT2_END, "pad_token": GPT2_END, "end_tokens": ("<|eot|>",)}
    tokenizer = ByteLevelBPE(vocabulary, merges, pretokenization=Pretokenization(LLAMA3_PATTERN), **special)
    model = LanguageModel(tiny_llama(num_layers=1).causal_lm, tokenizer, "of two ends")
    assert not model.backbone.tie_word_embeddings
    artefact = kg.TFLiteExporter(shortlist=16, decode_lengths=(32,), beams=3, **SMALL).export(
        model, tmp_path / "llama.tflite"
    )
    report = artefact.report
    assert report["parity"]["greedy_equal"]
    assert not report["parity"]["is_degenerate"]
    assert report["graph"]["num_heads"] == 2  # of keys; there are four of queries
    assert report["graph"]["shortlist"]["count"] == 16
    assert not any(name.startswith(("CUSTOM", "Flex")) for name in report["operators"])
    engine = kg.load_artefact(artefact.path, weight_cache=None).engine
    assert engine.tokenizer.end_token_ids == tokenizer.end_token_ids
    assert len(tokenizer.end_token_ids) == 2
    host = NumpyEngine(*keras_weights.decoder_of(model.causal_lm), model.tokenizer)
    prompts = model.tokenizer.encode_batch(["the and", "昨夜雨疏风骤", "the sand and the sea"])
    for sampler in ("greedy", "top_k:k=5,temperature=0.8", "beam:num_beams=4"):
        assert ids(engine, prompts, sampler) == ids(host, prompts, sampler), sampler
    several = {"sampler": "random", "num_return_sequences": 3}
    assert ids(engine, prompts[:1], **several) == ids(host, prompts[:1], **several)


def tables(path, rows: int) -> set[int]:
    """The stored matrices of so many rows; an output layer that is the tokens' table is among them once."""
    _, model = read(path.read_bytes())
    return {
        tensor.buffer
        for graph in model.subgraphs
        for tensor in graph.tensors
        if len(tensor.shape) == 2 and tensor.shape[0] == rows and model.buffers[tensor.buffer].data is not None
    }


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SCALED, {}])
@pytest.mark.parametrize("quantize", ["float16", "int8", "int4"])
def test_each_way_to_store_a_llama_is_proved(tmp_path, settings, quantize):
    """Past the length that its frequencies were trained for, which stay float32 numbers."""
    limits = {} if quantize == "float16" else LOOSE
    exporter = kg.TFLiteExporter(quantize=quantize, cache_length=96, prefill_lengths=(8,), decode_lengths=(), **limits)
    artefact = exporter.export(tiny_llama(num_layers=1, **settings), tmp_path / "llama.tflite")
    report = artefact.report
    assert len(tables(artefact.path, 300)) == (1 if settings else 2)
    if limits:
        assert "beams" in report["parity"]["signatures"]
        assert report["parity"]["divergence_in_nats"] < {"int8": 0.2, "int4": 0.6}[quantize]
    else:
        assert report["parity"]["greedy_equal"]


def test_a_model_without_a_limit_of_its_own_has_the_cache_that_is_asked_for():
    config = keras_weights.decoder_of(tiny_llama(num_layers=1).causal_lm)[0]
    assert config.max_sequence_length is None
    assert kg.TFLiteExporter()._cache_length(config) == 256
    assert kg.TFLiteExporter(cache_length=4096)._cache_length(config) == 4096
