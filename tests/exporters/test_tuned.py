"""A model that was tuned here, on either backend, with adapters and in short rows, leaves as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_gpt2
from toys import texts

import kerasgen as kg
from kerasgen.generation import generate_ids
from kerasgen.models.saving import save_preset

PROMPTS = [[5, 6], [40, 41, 42, 43, 44]]
SETTINGS = {
    "tflite": {"cache_length": 64, "prefill_lengths": (8,), "decode_lengths": (), "beams": 0},
    "saved_model": {"samplers": ("greedy",)},
}


def greedy(model) -> list[list[int]]:
    return [list(one[0].token_ids) for one in generate_ids(model, PROMPTS, sampler="greedy", max_new_tokens=24)]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> kg.Pipeline:
    """Two steps of LoRA in rows of 24 positions, where the model's own are 128."""
    folder = tmp_path_factory.mktemp("tuned")
    preset = save_preset(tiny_gpt2(num_layers=1, intermediate_dim=128), folder / "tiny")
    tuner = kg.LoraTuner(rank=2, learning_rate=0.3, max_steps=2, batch_size=2, sequence_length=24)
    pipe = kg.Pipeline(corpus=texts(20), model=preset, tuner=tuner, held_out=0.0, seed=0)
    before = greedy(pipe.model)
    pipe.fit(directory=folder / "run", verbose=0)
    assert greedy(pipe.model) != before
    assert any("lora" in variable.path for variable in pipe.model.causal_lm.weights)
    return pipe


@pytest.mark.parametrize(
    "name",
    [
        "tflite",
        pytest.param("saved_model", marks=pytest.mark.slow),
        pytest.param("preset", marks=pytest.mark.slow),
        pytest.param("transformers", marks=pytest.mark.slow),
    ],
)
def test_what_was_tuned_with_adapters_in_short_rows_is_what_generates(tuned: kg.Pipeline, tmp_path: Path, name: str):
    """Over more new tokens than a row had, and the pipeline goes on to be tuned: its adapters are still its own."""
    for package in {"tflite": ("ai_edge_litert", "tensorflow"), "saved_model": ("tensorflow",)}.get(name, ()):
        pytest.importorskip(package)
    wanted = greedy(tuned.model)
    artefact = tuned.export(tmp_path / "poet", exporter=name, **SETTINGS.get(name, {}))
    assert artefact.report["parity"]["greedy_equal"]
    assert max(artefact.report["parity"]["new_tokens"]) > 24
    if name in SETTINGS:
        found = artefact.runtime.generate_ids(PROMPTS, max_new_tokens=24)
    else:
        found = greedy(kg.Pipeline(model=artefact.path).model)
    assert found == wanted == greedy(tuned.model)
    assert any("lora" in variable.path for variable in tuned.model.causal_lm.weights)
