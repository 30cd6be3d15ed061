"""A Llama's SavedModel: rotary positions, shared key heads and an output layer of its own, in every sampler's loop."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_llama
from toys import by_keras_hub

import kerasgen as kg
from kerasgen.generation import generate_ids
from kerasgen.models.base import LanguageModel

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.one_backend]

TEXTS = ("the and", "昨夜雨疏风骤", "", "the and")
# Llama 3.2's kind: tied, with frequencies scaled for texts longer than those of the training.
SCALED = {
    "tie_word_embeddings": True, "rope_frequency_adjustment_factor": 8.0, "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0, "rope_pretraining_sequence_length": 32,
}  # fmt: skip


def scaled_llama() -> LanguageModel:
    return tiny_llama(num_layers=1, hidden_dim=16, **SCALED)


def test_a_fresh_process_generates_what_kerashub_computes_past_the_length_of_training(tmp_path):
    exporter = kg.SavedModelExporter(samplers=("greedy",), max_sequence_length=96)
    report = exporter.export(scaled_llama(), tmp_path / "llama").report
    assert report["decoder"] == "llama"
    assert report["max_sequence_length"] == 96
    assert all(report["parity"][f"{what}_equal"] for what in ("alone", "together", "tokenizer"))
    assert not report["parity"]["is_degenerate"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SCALED, {}])
@pytest.mark.parametrize("compiled", [False, True])
def test_ids_of_every_sampler_are_those_of_the_model(tmp_path, settings, compiled):
    """Past the 64 steps after which a cache's second part is laid to the first."""
    model = tiny_llama(num_layers=1, **settings)
    assert model.backbone.tie_word_embeddings == bool(settings)
    exporter = kg.SavedModelExporter(samplers=("greedy", "top_k", "beam"), max_sequence_length=160, compiled=compiled)
    runtime = exporter.export(model, tmp_path / "llama").runtime
    prompts = model.tokenizer.encode_batch(TEXTS)
    for sampler in ("greedy", "top_k:k=5,temperature=0.8", "beam:num_beams=4"):
        asked = {"sampler": sampler, "max_new_tokens": 70, "seed": 7}
        wanted = [list(several[0].token_ids) for several in generate_ids(model, prompts, **asked)]
        assert runtime.generate_ids(prompts, **asked) == wanted, sampler
    model.causal_lm.compile(sampler="greedy")
    new = by_keras_hub(model, TEXTS[0], 40)
    assert runtime.generate_ids(prompts[:1], max_new_tokens=len(new), valid_utf8=False) == [new]
    ids = [model.tokenizer.start_token_id, *model.tokenizer.encode("the sand and the sea, and 昨夜雨疏风骤" * 2)]
    outputs = model.causal_lm({"token_ids": np.asarray([ids]), "padding_mask": np.ones((1, len(ids)), "int32")})
    np.testing.assert_allclose(runtime.logits(ids), np.asarray(outputs)[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SCALED, {}])
@pytest.mark.nightly
def test_float16_is_the_model_as_float16_rounds_it(tmp_path, settings):
    exporter = kg.SavedModelExporter(samplers=("greedy",), dtype="float16", max_sequence_length=64)
    report = exporter.export(tiny_llama(num_layers=1, **settings), tmp_path / "half").report
    assert report["parity"]["greedy_equal"]


def test_a_text_longer_than_the_model_s_positions_is_refused(tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match="at most the model's 32 positions"):
        kg.SavedModelExporter(max_sequence_length=33).export(
            tiny_gpt2(num_layers=1, max_sequence_length=32), tmp_path / "poet"
        )
    with pytest.raises(kg.errors.ExportArgumentError, match="Received: 0"):
        kg.SavedModelExporter(max_sequence_length=0)
