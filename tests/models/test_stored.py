"""A preset that lies on disk is decoded without Keras: the same weights, shape and tokenizer, and the same texts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt
from toys import smallest_llama

import kerasgen as kg
from kerasgen.decoder.weights import flat
from kerasgen.models import starter
from kerasgen.models.architectures import keras_weights, stored
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend  # no Keras is in it, and what is compared with it stands on any backend


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Directories of a GPT-2 and an OPT, and the models."""
    folder = tmp_path_factory.mktemp("presets")
    models = {"gpt2": tiny_gpt2(), "opt": tiny_opt(dropout=0.1)}
    for name, model in models.items():
        save_preset(model, folder / name)
    return folder, models


@pytest.mark.parametrize("name", ["gpt2", "opt", "starter"])
def test_what_is_read_is_what_keras_hub_loads(presets, name):
    directory = starter.DIRECTORY if name == "starter" else presets[0] / name
    found = stored.read(directory)
    assert found is not None
    model = kg.models.create(name if name == "starter" else f"hub:preset={directory}").load()
    config, weights = keras_weights.decoder_of(model.causal_lm)
    assert found.config == config
    assert found.tokenizer.digest() == model.tokenizer.digest()
    wanted = flat(weights)
    assert flat(found.weights).keys() == wanted.keys()
    for name, array in flat(found.weights).items():
        np.testing.assert_array_equal(array, wanted[name])


@pytest.mark.parametrize("change", ["another setting", "another class", "float16", "cut", "no vocabulary", "a shape"])
def test_what_is_not_exactly_such_a_preset_is_left_to_keras_hub(presets, tmp_path, change):
    directory = tmp_path / "preset"
    shutil.copytree(presets[0] / "gpt2", directory)
    config = json.loads((directory / "config.json").read_text())
    if change == "another setting":
        config["config"]["rope_max_wavelength"] = 1
    elif change == "another class":
        config["registered_name"] = "mine>GPT2Backbone"
    elif change == "float16":
        config["config"]["dtype"] = "float16"
    elif change == "a shape":
        config["config"]["intermediate_dim"] *= 2
    elif change == "cut":
        weights = directory / "model.weights.h5"
        weights.write_bytes(weights.read_bytes()[:-4000])
    else:
        (directory / "assets" / "tokenizer" / "vocabulary.json").unlink()
    (directory / "config.json").write_text(json.dumps(config))
    assert stored.read(directory) is None


def test_other_families_and_places_are_left_to_keras_hub(tmp_path):
    smallest_llama().backbone.save_to_preset(str(tmp_path / "llama"))
    assert stored.read(tmp_path / "llama") is None
    assert stored.read(tmp_path / "nowhere") is None


def test_a_fresh_process_writes_the_same_texts_without_keras(presets):
    """Streams, beams and draws alike; and Keras comes when something asks for the model."""
    folder, models = presets
    program = f"""
import json, sys
import kerasgen as kg
pipe = kg.Pipeline(model={str(folder / "gpt2")!r}, sampler="greedy")
texts = [pipe.generate("the man", max_new_tokens=12), "".join(pipe.stream("a", sampler="random", max_new_tokens=12))]
texts += pipe.generate(["in", "春"], sampler="beam:num_beams=3", max_new_tokens=8)
before = sorted({{"keras", "keras_hub", "tensorflow"}} & set(sys.modules))
pipe.model
after = pipe.generate("the man", max_new_tokens=12)
print(json.dumps([texts, before, after]))
"""
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    texts, before, after = json.loads(run.stdout.splitlines()[-1])
    assert before == []
    pipe = kg.Pipeline(model="starter", sampler="greedy")
    pipe._model = models["gpt2"]
    wanted = [pipe.generate("the man", max_new_tokens=12), pipe.generate("a", sampler="random", max_new_tokens=12)]
    wanted += pipe.generate(["in", "春"], sampler="beam:num_beams=3", max_new_tokens=8)
    assert texts == wanted
    assert after == wanted[0]


def test_weights_that_were_tuned_are_the_ones_that_write(presets):
    from tiny import roughen

    pipe = kg.Pipeline(model=str(presets[0] / "gpt2"), sampler="greedy")
    before = pipe.generate("the man", max_new_tokens=12)
    roughen(pipe.model.backbone, seed=11)
    assert pipe.generate("the man", max_new_tokens=12) != before
