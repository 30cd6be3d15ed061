"""A transformers-format directory holds the model: read back it says the same, and transformers itself agrees."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import tiny_gpt2, tiny_opt

import kerasgen as kg
from kerasgen.exporters.base import Artefact
from kerasgen.exporters.transformers import exporter as transformers
from kerasgen.exporters.transformers import transformers_worker
from kerasgen.models.base import LanguageModel
from kerasgen.models.loading import load_directory
from kerasgen.runtime import Runtime
from kerasgen.testing.runtimes import RuntimeContract
from kerasgen.tokens.bpe import ByteLevelBPE


@pytest.fixture
def without_transformers(monkeypatch):
    """What a person sees who has not installed it; where it is, the slow tests run it."""
    monkeypatch.setattr(transformers, "_prove_in_transformers", lambda *arguments: None)


def model_of(make):
    return make(num_layers=1, intermediate_dim=48)


@pytest.mark.parametrize("make", [tiny_gpt2, pytest.param(tiny_opt, marks=pytest.mark.slow)])
@pytest.mark.nightly
def test_what_was_written_reads_back_equal(make, tmp_path, without_transformers):
    model = model_of(make)
    artefact = kg.TransformersExporter().export(model, tmp_path / "hf")
    written = load_directory(artefact.path, source="test")
    assert written.tokenizer == model.tokenizer
    inputs = {"token_ids": np.asarray([[5, 6, 7, 8]]), "padding_mask": np.ones((1, 4), "int32")}
    found, expected = (np.asarray(one.causal_lm(inputs)) for one in (written, model))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert artefact.report["parity"]["greedy_equal"]
    assert artefact.report["parity"]["transformers"] is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["hf"]


@pytest.mark.one_backend
@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.nightly
def test_halves_take_half_the_room(dtype, tmp_path, without_transformers):
    model = model_of(tiny_gpt2)
    report = kg.TransformersExporter(dtype=dtype).export(model, tmp_path / "half").report
    assert report["files"]["model.safetensors"] < 0.6 * 4 * model.causal_lm.count_params()
    assert report["parity"]["greedy_equal"]


@pytest.mark.one_backend
def test_a_weight_too_large_for_float16_leaves_nothing(tmp_path):
    model = model_of(tiny_gpt2)
    embeddings = model.backbone.token_embedding.embeddings
    embeddings.assign(np.full(embeddings.shape, 1e5, "float32"))
    with pytest.raises(kg.errors.ExportError, match="not finite as float16"):
        kg.TransformersExporter(dtype="float16").export(model, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def off_by_a_little(directory: Path) -> None:
    """One weight of the file."""
    place = directory / "model.safetensors"
    tensors = load_file(place)
    table = max(tensors.values(), key=lambda tensor: tensor.size)
    table[7, 0] += 3.0
    save_file(tensors, place, metadata={"format": "pt"})


def of_another_vocabulary(directory: Path) -> None:
    transformers.write_tokenizer(tiny_gpt2(299).tokenizer, directory, length=128)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("damage", "figure"),
    [(off_by_a_little, "greedy_equal"), pytest.param(of_another_vocabulary, "tokenizer_equal", marks=pytest.mark.slow)],
)
def test_a_directory_that_is_written_wrong_is_not_handed_over(
    tmp_path, monkeypatch, without_transformers, damage, figure
):
    """A fresh process finds what is wrong, the figures are told, and no file is left."""
    write = kg.TransformersExporter._write_weights

    def write_damaged(exporter, tensors, directory):
        write(exporter, tensors, directory)
        damage(directory)

    monkeypatch.setattr(kg.TransformersExporter, "_write_weights", write_damaged)
    with pytest.raises(kg.errors.ExportError, match=figure) as caught:
        kg.TransformersExporter().export(model_of(tiny_gpt2), tmp_path / "hf")
    assert caught.value.figures[figure] is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_a_directory_that_can_not_be_read_back_is_not_handed_over(tmp_path, monkeypatch, without_transformers):
    monkeypatch.setattr(kg.TransformersExporter, "_write_weights", lambda exporter, tensors, directory: None)
    with pytest.raises(kg.errors.ExportError, match=r"transformers\.worker failed"):
        kg.TransformersExporter().export(model_of(tiny_gpt2), tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_backend
def test_an_unknown_type_is_refused():
    with pytest.raises(kg.errors.ExportArgumentError, match="float8"):
        kg.TransformersExporter(dtype="float8")


class InTransformers(Runtime):
    """A directory that transformers runs in this process, prompts of a batch padded on its left."""

    def __init__(self, path: Path) -> None:
        import transformers

        self.tokenizer = ByteLevelBPE.from_directory(path)
        self.max_sequence_length = None
        self._model = transformers.AutoModelForCausalLM.from_pretrained(path).float().eval()

    def generate_checked(self, prompts, config, *, end_token_id):
        assert (config.sampler, config.valid_utf8) == (kg.Greedy(), False)
        end = self.tokenizer.end_token_id if end_token_id is None else end_token_id
        begun = [[self.tokenizer.start_token_id, *prompt] for prompt in prompts]
        return transformers_worker.generate(
            self._model, begun, config.max_new_tokens, self.tokenizer.pad_token_id, end=end
        )


needs_transformers = pytest.mark.skipif(
    not (importlib.util.find_spec("transformers") and importlib.util.find_spec("torch")),
    reason="transformers and torch are not installed",
)


@pytest.fixture(scope="module")
def opt(tmp_path_factory) -> tuple[LanguageModel, Artefact]:
    model = model_of(tiny_opt)
    return model, kg.TransformersExporter().export(model, tmp_path_factory.mktemp("hf") / "hf")


@pytest.fixture(scope="module")
def in_transformers(opt) -> tuple[LanguageModel, Runtime]:
    model, artefact = opt
    return model, InTransformers(artefact.path)


@pytest.mark.slow
@pytest.mark.one_backend
@needs_transformers
@pytest.mark.nightly
class TestRuntime(RuntimeContract):
    """Of OPT, whose padding is not its end token. What transformers draws, and its beams, are its own affair."""

    keeps_utf8 = False

    @pytest.fixture
    def model(self, in_transformers) -> LanguageModel:
        return in_transformers[0]

    @pytest.fixture
    def runtime(self, in_transformers) -> Runtime:
        return in_transformers[1]


@pytest.mark.slow
@needs_transformers
@pytest.mark.parametrize("name", ["gpt2", "opt", "starter"])
@pytest.mark.nightly
def test_transformers_alone_generates_the_same_ids(name, tmp_path, request):
    """In a process without Keras; its tokenizer gives the start token and then the model's ids."""
    if name == "opt":
        artefact = request.getfixturevalue("opt")[1]
    else:
        model = model_of(tiny_gpt2) if name == "gpt2" else kg.Pipeline(corpus="sample", model="starter").model
        artefact = kg.TransformersExporter().export(model, tmp_path / "hf")
    report = artefact.report
    found = report["parity"]["transformers"]
    assert found["ids_equal"]
    assert found["text_equal"]
    assert found["greedy_equal"]
    assert found["modules"] == ["torch"]
    for what in ("alone", "together"):  # of different lengths, padded on the left
        assert found[f"{what}_equal"], what
    assert not report["parity"]["is_degenerate"] or name != "starter"
    assert json.loads((artefact.path / "config.json").read_text())["model_type"] in ("gpt2", "opt")


@pytest.mark.slow
@pytest.mark.one_backend
@needs_transformers
def test_rows_that_no_token_has_are_not_among_the_proof_s_ids():
    """A model may have more rows than its tokenizer has ids, and its texts are of those ids alone."""
    import torch
    import transformers

    sizes = {"vocab_size": 12, "n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    with torch.no_grad():
        model.transformer.wte.weight[10] = 50 * model.transformer.wte.weight[1]
        model.transformer.wte.weight[11] = -50 * model.transformer.wte.weight[1]
    assert max(transformers_worker.generate(model, [[1, 2]], 6, 0)[0]) >= 10
    assert max(transformers_worker.generate(model, [[1, 2]], 6, 0, ids=10)[0]) < 10
