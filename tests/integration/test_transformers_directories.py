"""A transformers directory of each architecture, with its tokenizer.json, goes through a pipeline and comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import byte_level
import numpy as np
import pytest
from described import CONFIGS
from safetensors.numpy import save_file
from transformers_state import state

import kerasgen as kg
from kerasgen.models import architectures

SAVED = json.loads(Path(__file__).parents[1].joinpath("decoder", "transformers_configs.json").read_text("utf-8"))
OF_ARCHITECTURE = {CONFIGS[name].architecture: name for name in reversed(CONFIGS)}  # the first of each
TEXTS = [f"the {a} and the {b} in 2013" for a in ("sea", "hill", "moon") for b in ("wind", "rain", "stars")]
PROMPT = "the sea and"
VOCABULARY = 400

# What others share is tried by night.
MARKS: dict[str, Any] = dict.fromkeys(architectures.names(), pytest.mark.nightly)
MARKS |= dict.fromkeys(("gpt2", "gemma3_text", "falcon", "gpt_oss"), pytest.mark.slow) | {"qwen3_moe": ()}


def written(path: Path, name: str) -> Path:
    """What transformers saves of a model: its configuration, its weights, its tokenizer."""
    byte_level.directory(path, "smollm2", VOCABULARY)
    config = {**SAVED[name], "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}  # this tokenizer's
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = state(replace(CONFIGS[name], vocabulary_size=VOCABULARY))
    save_file({tensor: np.ascontiguousarray(array) for tensor, array in tensors.items()}, path / "model.safetensors")
    return path


def costs(pipe: kg.Pipeline) -> list[float]:
    """The log-probability of each token of a text but its first one, and of its end."""
    scored = pipe.score(TEXTS[0])
    return [*scored.token_log_probabilities[1:], scored.end_log_probability]


@pytest.mark.parametrize("architecture", [pytest.param(name, marks=MARKS[name]) for name in architectures.names()])
def test_it_is_tuned_saved_and_loaded_as_the_same_model(architecture: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model", OF_ARCHITECTURE[architecture])
    tuner = kg.FullTuner(max_steps=2, batch_size=2, sequence_length=48, learning_rate=0.01, precision="float32")
    pipe = kg.Pipeline(TEXTS, path, tuner=tuner, sampler="greedy", held_out=0)
    before = costs(pipe)
    report = pipe.fit(verbose=0, directory=tmp_path / "run")
    assert report.packing == "best_fit"
    assert costs(pipe) != before
    text = pipe.generate(PROMPT, max_new_tokens=6, valid_utf8=False)
    again = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert again.generate(PROMPT, max_new_tokens=6, valid_utf8=False) == text
    assert costs(again) == costs(pipe)
    assert again.model.hub_reason == pipe.model.hub_reason


def test_ordinary_text_that_a_configuration_names_as_padding_stays_text(tmp_path: Path) -> None:
    path = written(tmp_path / "model", "llama")
    wanted = kg.Pipeline(TEXTS, path).model.tokenizer
    config = json.loads((path / "config.json").read_text("utf-8"))
    for token in ("$", "a"):
        (token_id,) = wanted.encode(token)
        (path / "config.json").write_text(json.dumps(config | {"pad_token_id": token_id}), encoding="utf-8")
        tokenizer = kg.Pipeline(TEXTS, path).model.tokenizer
        assert tokenizer.pad_token_id == tokenizer.end_token_id
        assert tokenizer.encode("a $ and") == wanted.encode("a $ and")
        assert tokenizer.decode(tokenizer.encode("a $ and")) == "a $ and"
