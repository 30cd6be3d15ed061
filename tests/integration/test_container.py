"""A model that KerasHub has no class for goes the whole way: tuned with packing, saved, loaded, generating, scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contained import REASON, Contained

import kerasgen as kg
from kerasgen.decoder.numpy import greedy
from kerasgen.models import described
from kerasgen.models.saving import save_preset

PLACES, THINGS = ("sea", "hill", "春", "moon"), ("wind", "rain", "stars")
TEXTS = [f"the {a} and the {b} in 2013\n\n {a}" for a in PLACES for b in THINGS]
SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "batch_size": 2,
    "sequence_length": 64,
    "learning_rate": 0.02,
    "precision": "float32",
}
PROMPT = "the sea and"


@pytest.fixture(scope="module", params=["full", "lora"])
def tuned(request, tmp_path_factory) -> kg.Pipeline:
    tuner = kg.LoraTuner(rank=2, **SETTINGS) if request.param == "lora" else kg.FullTuner(**SETTINGS)
    directory = save_preset(Contained().load(), tmp_path_factory.mktemp("models") / "olmo2")
    pipe = kg.Pipeline(TEXTS, directory, tuner=tuner, sampler="greedy", held_out=0.2)
    report = pipe.fit(verbose=0, directory=tmp_path_factory.mktemp("run"))
    alone = max(len(pipe.tokenizer.encode(text)) for text in TEXTS) / SETTINGS["sequence_length"]
    assert report.fill > 1.2 * alone  # for a row holds several documents
    assert (report.trainable_parameters < report.parameters / 5) == (request.param == "lora")
    assert report.validations[-1].loss < report.validations[0].loss
    return pipe


def by_numpy(pipe: kg.Pipeline, new_tokens: int) -> str:
    config, weights = described.decoder_of(pipe.model)
    tokenizer = pipe.tokenizer
    ids = [tokenizer.start_token_id, *tokenizer.encode(PROMPT)]
    return tokenizer.decode(greedy(config, weights, ids, new_tokens=new_tokens, end=tokenizer.end_token_id))


def test_it_generates_as_its_arithmetic_says_and_does_so_again_when_it_is_loaded(tuned, tmp_path: Path) -> None:
    text = str(tuned.generate(PROMPT, max_new_tokens=16, return_prompt=False, valid_utf8=False))
    assert text == by_numpy(tuned, 16)
    assert str(
        tuned.generate(PROMPT, max_new_tokens=6, return_prompt=False, valid_utf8=False, engine="keras")
    ) == by_numpy(tuned, 6)
    again = kg.Pipeline.load(tuned.save(tmp_path / "saved", merge_adapters=True))
    assert again.generate(PROMPT, max_new_tokens=16, return_prompt=False, valid_utf8=False) == text
    assert again.model.causal_lm is None
    assert again.model.hub_reason == REASON
    assert again.score(TEXTS[0]).end_log_probability == pytest.approx(tuned.score(TEXTS[0]).end_log_probability)
