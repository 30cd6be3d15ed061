"""Ids and losses are those that were recorded: of every engine, in every format, and of fifty steps on each backend.

`tools/golden.py` has the models, prompts, samplers and runs. What is recorded here holds on every processor; to compare
two versions to the bit, on one machine, use the tool itself.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT, TESTS

sys.path.insert(0, str(ROOT / "tools"))

import golden

from kerasgen import backend

GOLDEN = TESTS / "golden"
IDS: dict[str, Any] = json.loads((GOLDEN / "ids.json").read_text(encoding="utf-8"))
LOSSES: dict[str, Any] = json.loads((GOLDEN / "losses.json").read_text(encoding="utf-8"))
NEEDS = {
    "saved_model": "tensorflow",
    "tflite": "litert_quantizer",
    "tflite_int8": "litert_quantizer",
    "gguf": "xllamacpp",
}

slow = pytest.mark.slow


def of_samplers(arrays: dict[str, Any]) -> dict[str, list[list[int]]]:
    """The ids of each sampler in what the tool computed, a list for each prompt."""
    ids: dict[str, list[list[int]]] = {}
    for key, value in arrays.items():
        if key.endswith("/ids"):
            ids.setdefault(key.split("/")[0], []).append(value.tolist())
    return ids


@pytest.mark.numerical
@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["gpt2", pytest.param("opt", marks=slow), pytest.param("starter", marks=slow)])
def test_the_decoder_generates_the_recorded_ids(name: str) -> None:
    assert of_samplers(golden.generated(golden.pipeline(name), name)) == IDS[name]["float32"]


@slow
@pytest.mark.numerical
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_so_does_the_engine_of_keras(name: str) -> None:
    """A class of its own is decoded by KerasHub's forward pass, on the backend."""
    found = of_samplers(golden.generated(golden.pipeline(name, own=True), name))
    assert found == IDS[name]["float32"]


@slow
@pytest.mark.one_backend
@pytest.mark.parametrize("part", [part for part in golden.PARTS if "." in part])
def test_so_does_an_artefact(part: str, tmp_path: Path) -> None:
    """A quantised one generates ids of its own. llama.cpp has no beams, and draws by other random numbers."""
    kind, name = part.split(".")
    if importlib.util.find_spec(NEEDS[kind]) is None:
        pytest.skip(f"the package {NEEDS[kind]} is not installed")
    found = of_samplers(golden.exported(kind, name, tmp_path))
    recorded = IDS[name]["int8" if kind == "tflite_int8" else "float32"]
    if kind == "gguf":
        found, recorded = {"greedy": found["greedy"]}, {"greedy": recorded["greedy"]}
    assert found == recorded


@pytest.mark.numerical
@pytest.mark.parametrize("name", ["gpt2", pytest.param("opt", marks=slow)])
@pytest.mark.parametrize("tuner", ["full", pytest.param("lora", marks=slow)])
def test_fifty_steps_have_the_recorded_losses(name: str, tuner: str) -> None:
    """Adapters begin with numbers that the backend draws. Rounding differs by processor, and grows with the steps."""
    losses = golden.tuned(name, tuner)["losses"]
    recorded = LOSSES[backend.running()][f"{name}.{tuner}"]
    np.testing.assert_allclose(losses, recorded, rtol=1e-3)
    np.testing.assert_allclose(losses[:10], recorded[:10], rtol=1e-5)
