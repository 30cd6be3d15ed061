"""A model that KerasHub has no class for goes the whole way: tuned with packing, saved, loaded, generating, scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contained import REASON, Contained

import kerasgen as kg
from kerasgen.decoder.numpy import greedy
from kerasgen.errors import ExportArgumentError, GenerateArgumentError, ModelError, TuneArgumentError
from kerasgen.exporters.litertlm.exporter import as_litert_lm_tells
from kerasgen.generation.api import generate_ids
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
    """One architecture with a gate, one with a plain feed-forward part and biases."""
    tuner = kg.LoraTuner(rank=2, **SETTINGS) if request.param == "lora" else kg.FullTuner(**SETTINGS)
    name = "starcoder2" if request.param == "lora" else "olmo2"
    directory = save_preset(Contained(name).load(), tmp_path_factory.mktemp("models") / name)
    pipe = kg.Pipeline(TEXTS, directory, tuner=tuner, sampler="greedy", held_out=0.2)
    report = pipe.fit(verbose=0, directory=tmp_path_factory.mktemp("run"))
    alone = max(len(pipe.tokenizer.encode(text)) for text in TEXTS) / SETTINGS["sequence_length"]
    assert report.fill > 1.2 * alone  # for a row holds several documents
    assert (report.trainable_parameters < report.parameters / 5) == (request.param == "lora")
    assert report.validations[-1].loss < report.validations[0].loss
    return pipe


def by_numpy(pipe: kg.Pipeline, new_tokens: int) -> list[int]:
    config, weights = described.decoder_of(pipe.model)
    tokenizer = pipe.tokenizer
    ids = [tokenizer.start_token_id, *tokenizer.encode(PROMPT)]
    return greedy(config, weights, ids, new_tokens=new_tokens, end=tokenizer.end_token_id)


def test_it_generates_as_its_arithmetic_says_and_does_so_again_when_it_is_loaded(tuned, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"return_prompt": False, "valid_utf8": False, "return_logprobs": True}
    found = tuned.generate(PROMPT, max_new_tokens=16, **settings)
    assert list(found.token_ids) == by_numpy(tuned, 16)
    by_keras = tuned.generate(PROMPT, max_new_tokens=6, engine="keras", **settings)
    assert list(by_keras.token_ids) == by_numpy(tuned, 6)
    again = kg.Pipeline.load(tuned.save(tmp_path / "saved"))
    assert again.generate(PROMPT, max_new_tokens=16, return_prompt=False, valid_utf8=False) == found.text
    assert again.model.causal_lm is None
    assert again.model.hub_reason == REASON
    assert again.score(TEXTS[0]).end_log_probability == pytest.approx(tuned.score(TEXTS[0]).end_log_probability)


@pytest.mark.one_backend
def test_a_run_that_was_broken_off_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """And Keras's own file of the model, which a callback may write, holds the same model."""
    import keras

    class Breaks(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch:
                raise InterruptedError

    runs = []
    for is_broken in (False, True):
        tuner = kg.FullTuner(checkpoint_every=1, **SETTINGS)
        pipe = kg.Pipeline(TEXTS, Contained("smollm3"), tuner=tuner)
        directory = tmp_path / str(is_broken)
        if is_broken:
            with pytest.raises(InterruptedError):
                pipe.fit(verbose=0, directory=directory, callbacks=[Breaks()])
            pipe = kg.Pipeline(TEXTS, Contained("smollm3"), tuner=tuner)
        report = pipe.fit(verbose=0, directory=directory, resume=is_broken)
        assert (report.resumed_from is not None) == is_broken
        runs.append(pipe)
    one, other = (run.model.network for run in runs)
    for variable, again in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), np.asarray(again))
    one.save(tmp_path / "model.keras")
    read = keras.saving.load_model(tmp_path / "model.keras")
    assert read.config == one.config
    np.testing.assert_array_equal(read.read()["layers"][1]["up"]["kernel"], one.read()["layers"][1]["up"]["kernel"])


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> kg.Pipeline:
    """Not tuned, with most of the traits that graphs compute: windows, soft caps, norms before and after."""
    directory = save_preset(Contained("gemma2").load(), tmp_path_factory.mktemp("models") / "gemma2")
    return kg.Pipeline(TEXTS, directory, sampler="greedy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("model.tflite", {"cache_length": 64, "prefill_lengths": (8,), "decode_lengths": (), "beams": 0}),
        ("model.litertlm", {"cache_length": 64, "prefill_lengths": (8,)}),
        ("model_saved_model", {"max_sequence_length": 64, "num_beams": 1}),
    ],
)
def test_artefacts_of_graphs_generate_the_same(gemma, name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    if name.endswith(".litertlm"):
        pytest.importorskip("litert_lm", reason="the package litert-lm-api is not installed")
    artefact = gemma.export(tmp_path / name, **settings)
    runtime = kg.load_artefact(artefact.path)
    if name.endswith(".litertlm"):  # which writes bytes that are no character, as a model of random weights does
        tokenizer = gemma.model.tokenizer
        prompt = tokenizer.encode(PROMPT)
        ((written,),) = generate_ids(gemma.model, [prompt], sampler="greedy", max_new_tokens=16, valid_utf8=False)
        wanted = PROMPT + as_litert_lm_tells(tokenizer, list(written.token_ids))
    else:
        wanted = gemma.generate(PROMPT, max_new_tokens=16)
    assert runtime.generate(PROMPT, max_new_tokens=16) == wanted


@pytest.mark.one_backend
def test_what_is_not_to_be_had_without_keras_hub_says_so(gemma, tmp_path: Path) -> None:
    import keras_hub

    with pytest.raises(ExportArgumentError, match=REASON):
        gemma.export(tmp_path / "preset", exporter="preset")
    with pytest.raises(GenerateArgumentError, match=REASON):
        gemma.generate(PROMPT, sampler=keras_hub.samplers.GreedySampler(), max_new_tokens=2)
    with pytest.raises(ModelError, match=REASON):
        _ = gemma.model.backbone


@pytest.mark.one_backend
def test_its_vocabulary_is_trimmed_with_its_table(gemma) -> None:
    tuner = kg.FullTuner(vocabulary="trim", **SETTINGS)
    pipe = kg.Pipeline(TEXTS, Contained("gpt_neox"), tuner=tuner, sampler="greedy")
    report = pipe.fit(verbose=0)
    size = pipe.tokenizer.vocabulary_size
    assert size < 300
    assert pipe.model.vocabulary_size == size
    assert {shape for name, shape in shapes_of(pipe).items() if name == "head.kernel"} == {(24, size)}
    assert report.vocabulary["choice"] == "trim"


def shapes_of(pipe: kg.Pipeline) -> dict[str, Any]:
    return {name: variable.shape for name, variable in pipe.model.container.variables_by_name().items()}


@pytest.mark.nightly
def test_a_mixture_of_experts_is_tuned_with_what_its_routers_cost(tmp_path: Path) -> None:
    """GPT-OSS's: experts with biases, sinks, windows. Adapters go on attention, and nothing else learns beside them."""
    directory = save_preset(Contained("gpt_oss").load(), tmp_path / "gpt_oss")
    with pytest.raises(TuneArgumentError, match="mixtures of experts"):
        kg.Pipeline(TEXTS, directory, tuner=kg.LoraTuner(targets=("mlp",), **SETTINGS)).fit(verbose=0)
    pipe = kg.Pipeline(TEXTS, directory, tuner=kg.LoraTuner(rank=2, **SETTINGS), sampler="greedy", held_out=0.2)
    report = pipe.fit(verbose=0, directory=tmp_path / "run")
    assert report.packing == "best_fit"
    assert len(report.router_losses) == report.steps == SETTINGS["max_steps"]
    assert report.router_losses[0] > 0.25  # half of what balanced routers cost
    assert report.validations[-1].loss < report.validations[0].loss
    assert all("lora" in variable.path for variable in pipe.model.network.trainable_variables)
    settings: dict[str, Any] = {"max_new_tokens": 8, "return_prompt": False, "valid_utf8": False}
    generated = pipe.generate(PROMPT, return_logprobs=True, **settings)
    assert list(generated.token_ids) == by_numpy(pipe, 8)
    again = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert again.generate(PROMPT, **settings) == generated.text
