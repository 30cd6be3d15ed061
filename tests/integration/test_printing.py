"""What is printed is a line or two, and says which model it is about."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models.saving import save_preset
from kerasgen.tuners.base import TuneReport

pytestmark = pytest.mark.one_backend


def report(**settings) -> TuneReport:
    values = dict.fromkeys([field.name for field in dataclasses.fields(TuneReport)][:19], 0) | {
        "losses": [1.25] * 500,
        "validations": [],
        "samples": [],
        "packing": "none",
        "backend": "jax",
        "precision": "float32",
        "stopped": "finished",
    }
    return TuneReport(**values | settings)


@pytest.mark.parametrize(
    "value",
    [
        kg.Pipeline(),
        kg.Pipeline(corpus=["a long text " * 50] * 300, tuner=kg.LoraTuner(rank=4), sampler=kg.TopP(p=0.9)),
        kg.Pipeline(corpus=kg.Text("poems.txt", split="line"), model=kg.Hub("gpt2_base_en")),
        kg.Texts(["a long text " * 50] * 300),
        report(),
        kg.TextScore("春" * 500, tuple(range(500)), (b"x",) * 500, (-1.0,) * 500, (-1.0,) * 500, -1.0),
        kg.Artefact(Path("a.tflite"), "tflite", {"files": {"a": 1}, "parity": {"many": list(range(900))}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_representation_is_short(value):
    assert len(repr(value)) < 300
    assert "\n" not in repr(value)


def test_a_pipeline_is_printed_as_it_is_written():
    written = "Pipeline(corpus='sample', model='starter', tuner='full:epochs=2', sampler='top_k:k=8', seed=3)"
    pipe = eval(written, {"Pipeline": kg.Pipeline})
    assert repr(pipe) == str(pipe) == written


def test_the_default_model_is_named_wherever_figures_are():
    said = "starter, a small model of classical Chinese verse that ships with the package"
    assert str(kg.Pipeline().model_source) == said
    assert said in str(report(model=said))
    assert said in str(kg.Evaluation(1.0, 1.0, 1, 1, 1, model=said))
    assert "model" not in str(kg.Evaluation(1.0, 1.0, 1, 1, 1))


def test_an_evaluation_names_the_pipeline_s_model(tmp_path):
    preset = save_preset(tiny_gpt2(), tmp_path / "tiny")
    pipe = kg.Pipeline(model=preset)
    assert pipe.evaluate(["the cat sat"]).model == str(preset)
    assert len(repr(pipe.model)) < 200
