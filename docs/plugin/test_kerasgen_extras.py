"""kerasgen's conformance suites, for the plugins of this package."""

import keras_hub
import numpy as np
import pytest
from kerasgen_extras import BiasTuner, Fortunes, NpzExporter, TopA

from kerasgen import Pipeline, SavedModelExporter, TFLiteExporter, load_artefact
from kerasgen.models.base import LanguageModel
from kerasgen.models.saving import save_preset
from kerasgen.testing import CorpusContract, ExporterContract, SamplerContract, TunerContract
from kerasgen.tokens.characters import whole_character_bpe

TEXTS = ["the cat sat", "a mat in the rain", "a café in the rain"] * 2


def small_model() -> LanguageModel:
    """A GPT-2 of a few thousand weights whose tokenizer knows bytes and one character more, the é."""
    tokenizer = whole_character_bpe(TEXTS, vocabulary_size=258)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=258, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=32
    )
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source="starter")


class TestFortunes(CorpusContract):
    bad_arguments = ({"path": ""},)

    @pytest.fixture
    def corpus(self, tmp_path):
        (tmp_path / "cookies").write_text("Be kind.\n%\n\n%\nBe brief,\nthen stop.\n")
        return Fortunes(tmp_path / "cookies")

    @pytest.fixture
    def spec(self, tmp_path):
        return f"fortunes:path={tmp_path / 'cookies'}"


class TestTopA(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return TopA(a=0.3, temperature=0.9)

    @pytest.fixture
    def model(self):
        return small_model()


class TestBiases(TunerContract):
    @pytest.fixture
    def tuner(self):
        return BiasTuner(epochs=2, batch_size=2, checkpoint_every=2, learning_rate=0.01)


class TestNpz(ExporterContract):
    file_name = "weights.npz"
    generates = False  # it compares weights, and its report tells of no texts

    @pytest.fixture
    def exporter(self):
        return NpzExporter()

    @pytest.fixture
    def model(self):
        return small_model()


def test_only_biases_move(tmp_path):
    preset = save_preset(small_model(), tmp_path / "small")
    pipe = Pipeline(corpus=TEXTS, model=preset, tuner="biases:learning_rate=0.1,batch_size=2", held_out=0.0)
    assert pipe.tuner == BiasTuner(learning_rate=0.1, batch_size=2)
    before = {weight.path: np.array(weight) for weight in pipe.model.backbone.weights}
    report = pipe.fit(directory=tmp_path / "run", verbose=0)
    moved = [path for path, value in before.items() if not np.array_equal(value, _now(pipe, path))]
    assert report.trainable_parameters < report.parameters / 10
    assert moved
    assert all(path.endswith("bias") for path in moved)


def test_an_archive_is_written_by_its_ending_and_opened_again(tmp_path):
    pipe = Pipeline(model=save_preset(small_model(), tmp_path / "small"))
    artefact = pipe.export(tmp_path / "poet.npz")
    assert artefact.exporter == "npz"
    settings = {"max_new_tokens": 9, "sampler": "top_k:k=3,seed=1"}
    assert load_artefact(tmp_path / "poet.npz").generate("the cat", **settings) == pipe.generate("the cat", **settings)


def test_artefacts_hold_the_sampler(tmp_path):
    pipe = Pipeline(model=save_preset(small_model(), tmp_path / "small"))
    SavedModelExporter(samplers=("greedy", "top_a")).export(pipe.model, tmp_path / "served")
    settings = {"max_new_tokens": 9, "sampler": "top_a:a=0.3,temperature=2.0,seed=1"}
    assert load_artefact(tmp_path / "served").generate("the cat", **settings) == pipe.generate("the cat", **settings)

    from ai_edge_litert.interpreter import Interpreter

    TFLiteExporter(samplers=("top_a",), prefill_lengths=(8,)).export(pipe.model, tmp_path / "poet.tflite")
    choose = Interpreter(str(tmp_path / "poet.tflite")).get_signature_runner("choose_top_a")
    logits = np.random.default_rng(0).normal(size=(20, 258)).astype(np.float32)
    uniforms = np.linspace(0.0, 0.99, 20, dtype=np.float32)
    numbers = {"temperature": np.float32([2.0]), "a": np.float32([0.3])}
    found = [
        choose(logits=row[None], uniforms=uniform[None], **numbers)["token_ids"].item()
        for row, uniform in zip(logits, uniforms, strict=True)
    ]
    assert found == TopA(a=0.3).choose(np, logits / np.float32(2.0), uniforms).tolist()
    assert len(set(found)) > 5


def _now(pipe, path):
    return next(np.array(weight) for weight in pipe.model.backbone.weights if weight.path == path)
