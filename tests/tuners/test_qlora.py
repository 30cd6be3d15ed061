"""Adapters beside a base in int8 or int4: tuned as beside the same floats, saved, taken up again, merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contained import Contained
from tiny import tiny_gpt2
from toys import encode, smallest_gpt2, smallest_llama, texts

import kerasgen as kg
from kerasgen.errors import TuneArgumentError
from kerasgen.models import forward, quantized_base
from kerasgen.models.base import LanguageModel
from kerasgen.models.saving import save_preset
from kerasgen.tuners import adapters
from kerasgen.tuners.adapters import AdapterConfig

SETTINGS: dict[str, Any] = {
    **{"rank": 2, "alpha": 8.0, "targets": ("all",), "epochs": 2, "batch_size": 4, "sequence_length": 32},
    **{"learning_rate": 0.02, "precision": "float32"},
}


def tune(model: LanguageModel, directory: Path, **settings: Any) -> kg.TuneReport:
    tuner = kg.LoraTuner(**SETTINGS | settings)
    return tuner.tune(model, encode(model.tokenizer, texts(20)), seed=1, directory=directory, verbose=0)


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_losses_are_those_beside_the_floats_that_the_codes_stand_for(remat: bool, tmp_path: Path) -> None:
    """So packing, gradients, layers computed again and DoRA are those of the float pass, documents kept apart."""
    model, same = smallest_llama(), smallest_llama()
    adapters.hold(same, "int4")
    adapters.merge(same)
    assert quantized_base.scheme_of(same.network) is None
    report = tune(model, tmp_path / "codes", quantize="int4", use_dora=True, remat=remat)
    beside = tune(same, tmp_path / "floats", use_dora=True, remat=remat)
    np.testing.assert_allclose(report.losses, beside.losses, rtol=1e-4)
    assert report.losses[-1] < report.losses[0]
    assert (report.parameters, report.trainable_parameters) == (beside.parameters, beside.trainable_parameters)
    assert (report.base, beside.base) == ("int4", "float32")
    assert report.packing == "best_fit"
    assert "MiB in float32" in str(report)
    assert "merged" in report.reasons["base"]


@pytest.mark.one_backend
def test_a_document_is_the_same_alone_and_behind_another_one() -> None:
    model = Contained().load()
    adapters.enable(model, AdapterConfig(2, 4.0, ("all",), quantize="int4"), seed=0)
    rng = np.random.default_rng(0)
    for layer in adapters.carrying(model):
        layer.lora_kernel_b.assign(0.1 * rng.standard_normal(layer.lora_kernel_b.shape))
    losses = forward.TokenLosses(model)
    ids = rng.integers(0, 300, (1, 12)).astype(np.int32)
    positions, segments = np.array([[*range(5), *range(7)]], np.int32), np.array([[1] * 5 + [2] * 7], np.int32)
    together = losses({"token_ids": ids, "targets": ids, "positions": positions, "segment_ids": segments})
    alone = {"token_ids": ids[:, 5:], "targets": ids[:, 5:], "positions": positions[:, 5:]}
    apart = losses({**alone, "segment_ids": np.ones((1, 7), np.int32)})
    np.testing.assert_allclose(np.asarray(together)[:, 5:], np.asarray(apart), atol=1e-5)


@pytest.mark.one_backend
def test_a_pipeline_is_saved_with_its_adapters_alone_and_comes_back(tmp_path: Path) -> None:
    """Also whole: then a weight is what its code stands for and what the adapters add."""
    save_preset(smallest_gpt2(), tmp_path / "base")
    tuner = "lora:quantize=int8,rank=2,epochs=1,batch_size=2,learning_rate=0.02"
    pipe = kg.Pipeline(["the sea and the spring"] * 8, str(tmp_path / "base"), held_out=0.0, tuner=tuner)
    report = pipe.fit(verbose=0)
    assert report.base == "int8"
    text = pipe.generate("the", sampler="greedy", max_new_tokens=8)
    saved = pipe.save(tmp_path / "poet")
    assert json.loads((saved / "adapters" / "adapter.json").read_text())["quantize"] == "int8"
    again = kg.Pipeline.load(saved)
    assert again.generate("the", sampler="greedy", max_new_tokens=8) == text
    assert quantized_base.scheme_of(again.model.network) == "int8"
    whole = pipe.save(tmp_path / "whole", merge_adapters=True)
    pipe.merge()
    assert quantized_base.scheme_of(pipe.model.network) is None
    assert pipe.generate("the", sampler="greedy", max_new_tokens=8) == text
    merged = kg.Pipeline.load(whole)
    assert merged.generate("the", sampler="greedy", max_new_tokens=8) == text


@pytest.mark.one_backend
def test_other_settings_and_the_full_tuner_make_floats_of_the_codes(tmp_path: Path) -> None:
    model = smallest_gpt2()
    tune(model, tmp_path / "first", quantize="int8")
    adapters.enable(model, AdapterConfig(2, 8.0, ("all",)), seed=9)  # None: it stays as it is held
    assert adapters.current(model) is not None
    assert quantized_base.scheme_of(model.network) == "int8"
    adapters.enable(model, AdapterConfig(2, 8.0, ("query",), quantize="int4"), seed=9)
    assert quantized_base.scheme_of(model.network) == "int4"
    tuner = kg.FullTuner(batch_size=4, sequence_length=32, max_steps=1)
    report = tuner.tune(model, encode(model.tokenizer, texts(8)), seed=1, directory=tmp_path / "full", verbose=0)
    assert quantized_base.scheme_of(model.network) is None
    assert report.trainable_parameters == report.parameters == smallest_gpt2().network.count_params()


@pytest.mark.one_backend
def test_new_rows_of_the_embeddings_are_tuned_as_floats(tmp_path: Path) -> None:
    model = tiny_gpt2(400, num_layers=1, hidden_dim=16, max_sequence_length=32)
    poems = [f"{a}{b}花落知多少" for a in "春夏秋冬" for b in "風雨雲月"]
    tuner = kg.LoraTuner(**SETTINGS | {"vocabulary": "extend", "quantize": "int8", "max_steps": 2})
    tuner.adapt_vocabulary(model, lambda: poems)
    before = np.array(model.backbone.token_embedding.embeddings)
    tuner.tune(model, encode(model.tokenizer, poems), seed=1, directory=tmp_path, verbose=0)
    after, first = np.array(model.backbone.token_embedding.embeddings), model.metadata["vocabulary"]["first_added"]
    np.testing.assert_array_equal(after[:first], before[:first])
    assert (after[first:] != before[first:]).any()


@pytest.mark.one_backend
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`:UserWarning")
def test_what_can_t_be_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(TuneArgumentError, match=r"quantize must be one of None, 'int8', 'int4'. Received: 'int3'"):
        kg.LoraTuner(quantize="int3")
    with pytest.raises(TuneArgumentError, match=r"quantize is for the paper's form"):
        kg.LoraTuner(quantize="int8", form="keras")
    with pytest.raises(TuneArgumentError, match=r"one device"):
        kg.LoraTuner(quantize="int8", distribution="data")
    model = smallest_gpt2()
    model.causal_lm.quantize("int8")
    with pytest.raises(TuneArgumentError, match=r"quantized by Keras.*leave out causal_lm.quantize"):
        tune(model, tmp_path, quantize="int8")
    with pytest.raises(TuneArgumentError, match=r"LoraTuner\(quantize='int8'\)"):
        tune(model, tmp_path)
