"""What a run will take, told before it begins."""

import json
from dataclasses import replace

import pytest

import kerasgen as kg
from kerasgen.errors import ArgumentError
from kerasgen.estimates import estimate as estimates
from kerasgen.estimates.shortened import WHOLE, ShortenedModel
from kerasgen.models import described
from tests.support.described import GPT2

pytestmark = pytest.mark.one_backend


def sizes_of(model):
    config = described.config_of(model)
    return estimates._sizes(config)


def test_weights_are_counted_from_the_description_alone():
    model = kg.Pipeline(model="starter").model
    assert sizes_of(model).total == sum(weight.size for weight in map(_array, model.network.weights))


def _array(weight):
    import numpy as np

    return np.asarray(weight)


def test_a_short_model_has_the_shapes_and_the_tokenizer_of_the_whole_one():
    starter = kg.Pipeline(model="starter")
    whole = starter.model
    short = ShortenedModel(starter.model_source, 2).load()
    assert short.metadata[WHOLE] == described.config_of(whole)
    assert described.config_of(short) == replace(described.config_of(whole), num_layers=2)
    assert short.tokenizer.digest() == whole.tokenizer.digest()


def test_a_model_whose_files_are_elsewhere_is_refused_before_a_process_is_started():
    with pytest.raises(ArgumentError, match="files don't lie on this machine"):
        kg.Pipeline(corpus="sample", model="gpt2_base_en").estimate()


@pytest.mark.parametrize(
    ("found", "count"),
    [
        ({"steps": 10, "steps_per_epoch": 10, "validate_every": None}, 1),
        ({"steps": 25, "steps_per_epoch": 10, "validate_every": None}, 3),
        ({"steps": 25, "steps_per_epoch": 10, "validate_every": 5}, 5),
    ],
)
def test_validations_are_counted_as_the_run_makes_them(found, count):
    assert estimates._validations(found) == count


def test_a_pipeline_without_a_corpus_has_no_run_to_estimate():
    with pytest.raises(ArgumentError, match="An estimate needs a corpus"):
        kg.Pipeline(model="starter").estimate()


def test_an_estimate_is_json_and_text():
    found = estimates.Estimate(
        parameters=1_000,
        steps=3,
        step_seconds=0.5,
        seconds_to_first_step=4.0,
        seconds=5.0,
        memory_bytes=2_000_000_000,
        backend="jax",
        precision="float32",
        sequence_length=64,
        batch_size=8,
        artefacts={"gguf": 4_000_000},
    )
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["steps"] == 3
    assert "2.00 GB of memory at most" in str(found)
    assert "gguf: 4.0 MB" in str(found)


def test_layers_are_cut_wherever_a_description_has_one_each():
    from kerasgen.estimates.shortened import _cut
    from tests.support.described import GEMMA2

    assert _cut(GEMMA2, 2).attention.windows == GEMMA2.attention.windows[:2]
    assert _cut(GPT2, 1).num_layers == 1


def test_each_size_is_named_by_an_exporter_that_there_is():
    for name in estimates._artefacts(estimates._Sizes(1, 1, 1)):
        kg.exporters.create(name)


@pytest.mark.slow
@pytest.mark.essential
def test_the_starter_s_run_is_estimated_by_trials_of_it():
    pipe = kg.Pipeline(
        corpus="sample", model="starter", tuner=kg.FullTuner(max_steps=8, vocabulary="keep"), backend="jax"
    )
    found = pipe.estimate()
    assert (found.steps, found.backend, found.precision) == (8, "jax", found.precision)
    assert found.parameters == 5_322_240
    assert 0 < found.step_seconds < found.seconds_to_first_step < found.seconds
    assert found.memory_bytes > 4 * 4 * found.parameters
    assert not pipe.report, "something of it was tuned"
