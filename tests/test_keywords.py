"""Wrong arguments of a call are told as wrong words are: what is meant, where it belongs, and what there is."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest
from installing import child

import kerasgen as kg
from kerasgen import errors, misplaced_settings
from kerasgen.keywords import checked, near

pytestmark = pytest.mark.one_backend

PIPELINE = kg.Pipeline(model="starter")

# A call, what it raises, and what its message must hold.
CALLS = {
    "TopK(temprature=1)": (errors.SamplerArgumentError, "'temperature'"),
    "TopK(top_k=40)": (errors.SamplerArgumentError, "mean 'k'"),
    "TopP(top_p=0.9)": (errors.SamplerArgumentError, "mean 'p'"),
    "Beam(beam_size=4)": (errors.SamplerArgumentError, "'num_beams'"),
    "Greedy(1)": (errors.SamplerArgumentError, "none without a name"),
    "FullTuner(lr=1e-4)": (errors.TuneArgumentError, "'learning_rate'"),
    "FullTuner(epoch=3)": (errors.TuneArgumentError, "'epochs'"),
    "FullTuner(batch=3)": (errors.TuneArgumentError, "'batch_size'"),
    "FullTuner(num_train_epochs=3)": (errors.TuneArgumentError, "'epochs'"),
    "FullTuner(3)": (errors.TuneArgumentError, "none without a name"),
    "LoraTuner(r=8, lora_alpha=16)": (errors.TuneArgumentError, "'rank'? Did you mean 'alpha'"),
    "LoraTuner(lora_r=8)": (errors.TuneArgumentError, "'rank'"),
    "Text()": (errors.CorpusArgumentError, "needs 'path'. Write Text(path=…)"),
    "Texts(['a'], 'more')": (errors.CorpusArgumentError, "besides: 'more'"),
    "Jsonl(file='a')": (errors.CorpusArgumentError, "'path'"),
    "Sample(lang='zh')": (errors.CorpusArgumentError, "'language'"),
    "Texts(dataset=[])": (errors.CorpusArgumentError, "'texts'"),
    "Hub(name='gpt2')": (errors.ModelArgumentError, "'preset'"),
    "Starter('x')": (errors.ModelArgumentError, "'x'"),
    "Regex()": (errors.ConstraintArgumentError, "'pattern'"),
    "TFLiteExporter(quantization='int8')": (errors.ExportArgumentError, "'quantize'"),
    "Pipeline(corpora='sample')": (errors.ArgumentError, "'corpus'"),
    "Pipeline(dataset=['a'])": (errors.ArgumentError, "'corpus'"),
    "Pipeline('sample', 'starter', 'full')": (errors.ArgumentError, "tuner"),
    "Pipeline(lr=1e-3, epoch=3)": (errors.ArgumentError, "tuner=kg.FullTuner(learning_rate=0.001, epochs=3)"),
    "Pipeline(r=8)": (errors.ArgumentError, "tuner=kg.LoraTuner(rank=8)"),
    "Pipeline(temperature=0.7)": (errors.ArgumentError, "sampler=kg.TopK(k=5, temperature=0.7)"),
    "pipe.generate('x', temprature=0.8)": (errors.GenerateArgumentError, "sampler=kg.TopK(k=5, temperature=0.8)"),
    "pipe.generate('x', top_k=40, temperature=0.7)": (errors.GenerateArgumentError, "kg.TopK(k=40, temperature=0.7)"),
    "pipe.generate('x', top_p=0.9)": (errors.GenerateArgumentError, "sampler=kg.TopP(p=0.9)"),
    "pipe.generate('x', do_sample=True)": (errors.GenerateArgumentError, "sampler=kg.Random()"),
    "pipe.generate('x', eos_token_id=3)": (errors.GenerateArgumentError, "strings of `stop`"),
    "pipe.generate('x', eos_token_id=3, top_k=4)": (errors.GenerateArgumentError, "\\n']. How tokens"),
    "Pipeline(tuner='full:csv=True')": (errors.TuneArgumentError, "keras.callbacks.CSVLogger(path)"),
    "pipe.generate('x', temperature=0)": (errors.GenerateArgumentError, "sampler=kg.Greedy()"),
    "pipe.generate('x', num_beams=4)": (errors.GenerateArgumentError, "sampler=kg.Beam(num_beams=4)"),
    "pipe.generate('x', penalty_alpha=0.6, top_k=4)": (errors.GenerateArgumentError, "kg.Contrastive(alpha=0.6, k=4)"),
    "pipe.generate('x', max_tokens=9)": (errors.GenerateArgumentError, "'max_new_tokens'"),
    "pipe.generate('x', n=2)": (errors.GenerateArgumentError, "'num_return_sequences'"),
    "pipe.generate('x', num_samples=2)": (errors.GenerateArgumentError, "'num_return_sequences'"),
    "pipe.generate('x', stop_sequences=['a'])": (errors.GenerateArgumentError, "'stop'"),
    "pipe.generate(prompt='x')": (errors.GenerateArgumentError, "'prompts'"),
    "pipe.generate()": (errors.GenerateArgumentError, "needs 'prompts'"),
    "pipe.generate('x', 5)": (errors.GenerateArgumentError, "Received besides: 5"),
    "pipe.generate('x', max_tokens=3, temperature=0.5)": (errors.GenerateArgumentError, "'max_new_tokens'"),
    "pipe.generate('x', backend='jax')": (errors.GenerateArgumentError, "kg.Pipeline(…, backend='jax')"),
    "pipe.stream('x', temperature=0.8)": (errors.GenerateArgumentError, "sampler=kg.TopK("),
    "pipe.stream(prompts='x')": (errors.GenerateArgumentError, "'prompt'"),
    "pipe.generate_to('a.jsonl')": (errors.GenerateArgumentError, "needs 'prompts'"),
    "pipe.generate_to('a.jsonl', ['x'], overwite=True)": (errors.GenerateArgumentError, "'overwrite'"),
    "pipe.fit(['a text'])": (errors.ArgumentError, "kg.Pipeline(corpus=…"),
    "pipe.fit(epochs=3)": (errors.ArgumentError, "tuner=kg.FullTuner(epochs=3)"),
    "pipe.fit(batch=4)": (errors.ArgumentError, "tuner=kg.FullTuner(batch_size=4)"),
    "pipe.fit(output_dir='runs')": (errors.ArgumentError, "'directory'"),
    "pipe.evaluate(dataset='sample')": (errors.ArgumentError, "'corpus'"),
    "pipe.score()": (errors.ArgumentError, "needs 'texts'"),
    "pipe.export()": (errors.ExportArgumentError, "needs 'path'. Write export(path=…)"),
    "pipe.export('a.tflite', quantization='int8')": (errors.ExportArgumentError, "'quantize'"),
    "pipe.export('a.tflite', overwite=True)": (errors.ExportArgumentError, "'overwrite'"),
    "pipe.save('a', force=True)": (errors.ArgumentError, "'overwrite'"),
    "Pipeline.load('a', backed='jax')": (errors.ArgumentError, "'backend'"),
    "load_artefact()": (errors.GenerateArgumentError, "needs 'path'"),
    "Artefact('a', 'tflite').generate('x', temperature=1.0, max_new_tokens=3)": (
        errors.GenerateArgumentError,
        "sampler=kg.TopK(k=5, temperature=1.0)",
    ),
    "whole_character_bpe(['a'], vocab_size=300)": (errors.TokenArgumentError, "'vocabulary_size'"),
}
_IN_TEXT = re.compile(r"\((sampler|tuner)=(kg\.\w+\([^)]*\))|(sampler|tuner)=(kg\.\w+\([^)]*\))")


def call(written):
    name = written if written.startswith("pipe.") else f"kg.{written}"
    return eval(name, {"kg": kg, "pipe": PIPELINE})


@pytest.mark.parametrize("written", CALLS)
def test_a_wrong_argument_is_told_with_what_was_meant(written):
    kind, said = CALLS[written]
    with pytest.raises(kind) as caught:
        call(written)
    assert said in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("written", [one for one, (_, said) in CALLS.items() if "kg." in said and "…" not in said])
def test_the_sampler_or_tuner_that_a_message_writes_is_one(written):
    with pytest.raises(errors.ArgumentError) as caught:
        call(written)
    (groups,) = [found.groups() for found in _IN_TEXT.finditer(str(caught.value))]
    name, value = [group for group in groups if group is not None]
    assert isinstance(eval(value, {"kg": kg}), kg.SamplerSpec if name == "sampler" else kg.FineTuner)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("FullTuner(precision='bf16')", "Did you mean 'mixed_bfloat16'"),
        ("FullTuner(schedule='cosin')", "Did you mean 'cosine'"),
        ("Text('a.txt', split='paragraphs')", "Did you mean 'paragraph'"),
        ("ChinesePoetry(dynasty='tnag')", "Did you mean 'tang'"),
        ("Jsonl('a.jsonl', key='body')", "Did you mean 'field'"),
        ("Pipeline(backend='TensorFlow')", "Did you mean 'tensorflow'"),
        ("Pipeline('text:path=a.txt,split=paragraphs')", "Did you mean 'paragraph'"),
        ("TFLiteExporter(quantize='int-8')", "Did you mean 'int8'"),
        ("load_artifact", "Did you mean 'load_artefact'"),
    ],
)
def test_a_value_that_is_no_choice_is_told_the_nearest_one(written, meant):
    with pytest.raises((errors.ArgumentError, AttributeError), match=meant):
        eval(f"kg.{written}", {"kg": kg})


def test_python_s_own_kind_of_error_catches_it_too():
    with pytest.raises(TypeError):
        kg.TopK(temprature=1)
    with pytest.raises(TypeError):
        PIPELINE.generate("x", temprature=1)


def test_what_was_raised_travels_between_processes():
    with pytest.raises(errors.SamplerArgumentError) as caught:
        kg.TopK(temprature=1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert str(again) == str(caught.value)
    assert type(copy.copy(errors.CallError("so"))) is errors.CallError


def test_a_type_error_of_the_body_is_left_alone():
    @checked()
    def length(value):
        return len(value)

    with pytest.raises(TypeError, match="has no len") as caught:
        length(3)
    assert not isinstance(caught.value, errors.CallError)


@pytest.mark.parametrize("kind", [kg.TopK, kg.FullTuner, kg.Text, kg.Hub, kg.TFLiteExporter, kg.Pipeline])
def test_a_signature_is_the_constructor_s(kind):
    parameters = inspect.signature(kind).parameters
    assert list(parameters) == list(inspect.signature(kind.__init__).parameters)[1:]


@pytest.mark.parametrize("name", ["generate", "stream", "generate_to", "fit", "evaluate", "score", "export", "save"])
def test_a_method_s_signature_and_documentation_stay(name):
    method = getattr(kg.Pipeline, name)
    assert "self" in inspect.signature(method).parameters
    assert method.__doc__
    assert method.__name__ == name


def test_a_spec_is_copied_and_pickled_as_before():
    for spec in (kg.Text("a", split="line"), kg.TopK(k=3), kg.LoraTuner(rank=2), kg.VerseForm("七言絕句")):
        assert copy.copy(spec) == pickle.loads(pickle.dumps(spec)) == spec


def test_what_is_said_of_the_calls_is_what_they_take():
    def names(function):
        return set(inspect.signature(function).parameters) - {"self"}

    assert set(misplaced_settings.PIPELINE) == names(kg.Pipeline)
    assert set(misplaced_settings.FIT) == names(kg.Pipeline.fit)
    # The others are arguments of a pipeline, a tuner or a sampler too.
    others = {"prompts", "config", "sampler", "seed", "batch_size"}
    assert set(misplaced_settings.GENERATE) == names(kg.Pipeline.generate) - others


def test_a_wrong_call_is_told_before_anything_is_loaded():
    loaded = child(
        """
import json, sys
import kerasgen as kg
pipe = kg.Pipeline(model="gpt2_base_en")
for wrong in ({"temprature": 1}, {"max_tokens": 3}):
    try:
        pipe.generate("x", **wrong)
    except kg.errors.GenerateArgumentError:
        pass
print(json.dumps([name for name in ("keras", "jax", "numpy", "tensorflow") if name in sys.modules]))
"""
    )
    assert loaded == []


def test_a_plugin_s_class_says_it_as_a_built_in_does():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Mine(kg.CorpusSource):
        folder: str

        def documents(self, tally=None):
            yield from ()

    with pytest.raises(errors.CorpusArgumentError, match="Did you mean 'folder'"):
        Mine(foldr="a")


@pytest.mark.parametrize(
    ("word", "known", "first"),
    [
        ("lr", ["alpha", "learning_rate"], "learning_rate"),
        ("batch", ["epochs", "batch_size"], "batch_size"),
        ("maxsteps", ["max_steps"], "max_steps"),
        ("Learning-Rate", ["learning_rate"], "learning_rate"),
        ("nucleus", ["greedy", "top_k", "top_p"], "top_p"),
        ("qlora", ["full", "lora"], "lora"),
    ],
)
def test_a_word_s_neighbours(word, known, first):
    assert near(word, known)[0] == first
