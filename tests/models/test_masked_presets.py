"""Masked language models of KerasHub are read from presets, and written so that KerasHub reads them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest

from kerasgen.errors import KerasgenWarning
from kerasgen.models import hub_import, saving
from kerasgen.models.hub import Hub
from kerasgen.models.hub_tokenizer import left_open_files

_REST = [pytest.param(name, marks=pytest.mark.nightly) for name in ("bert", "distilbert", "xlm-roberta", "deberta-v2")]
FAMILIES = ["roberta", "albert", *_REST]
TASKS = {
    "roberta": "Roberta",
    "bert": "Bert",
    "distilbert": "DistilBert",
    "albert": "Albert",
    "xlm-roberta": "XLMRoberta",
    "deberta-v2": "DebertaV3",
}


def task_of(family: str, folder: Path) -> Any:
    """Return a small masked language model of KerasHub's with random weights, its preprocessor with it."""
    models = hub_import.load().models
    kind = TASKS[family]
    tokenizer = _tokenizer(family, encoders.tokenizer_folder(family, folder), getattr(models, f"{kind}Tokenizer"))
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 16, "intermediate_dim": 24, "max_sequence_length": 32}
    if family == "albert":
        sizes |= {"embedding_dim": 8, "num_layers": 4, "num_groups": 2, "num_inner_repetitions": 2}
    if family == "deberta-v2":
        sizes["bucket_size"] = 8
    backbone = getattr(models, f"{kind}Backbone")(vocabulary_size=tokenizer.vocabulary_size(), **sizes)
    preprocessor = getattr(models, f"{kind}MaskedLMPreprocessor")(tokenizer, sequence_length=16)
    task = getattr(models, f"{kind}MaskedLM")(backbone, preprocessor=preprocessor)
    draws = np.random.default_rng(0)
    for variable in task.weights:
        if variable.dtype == "float32":
            drawn = draws.normal(0.0, 0.3, variable.shape) + ("gamma" in variable.path)
            variable.assign(drawn.astype(np.float32))
    return task


def _tokenizer(family: str, folder: Path, kind: Any) -> Any:
    if family == "roberta":
        merges = (folder / "merges.txt").read_text().split("\n")[1:-1]
        return kind(json.loads((folder / "vocab.json").read_text()), merges)
    if family in ("bert", "distilbert"):
        return kind((folder / "vocab.txt").read_text().split("\n")[:-1], lowercase=family == "bert")
    return kind(next(folder.glob("*.model")).read_bytes())


def logits(task: Any, ids: Any) -> Any:
    places = np.tile(np.arange(ids.shape[1], dtype=np.int32), (len(ids), 1))
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), "mask_positions": places}
    if "segment_ids" in task.backbone.input:
        inputs["segment_ids"] = np.zeros_like(ids)
    return np.asarray(task(inputs))


def ours(model: Any, ids: Any) -> Any:
    positions = np.tile(np.arange(ids.shape[1], dtype=np.int32), (len(ids), 1))
    return np.asarray(model.network({"token_ids": ids, "positions": positions, "segment_ids": np.ones_like(ids)}))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset_of_keras_hub_is_read_and_written_again(family: str, tmp_path: Path) -> None:
    task = task_of(family, tmp_path / "files")
    task.save_to_preset(str(tmp_path / "theirs"))
    model = Hub(str(tmp_path / "theirs")).load()
    ids, _ = encoders.example(model.vocabulary_size)
    np.testing.assert_allclose(ours(model, ids), logits(task, ids), atol=1e-4)
    assert model.tokenizer.encode("the river") == encoders_ids(family, "the river", tmp_path)

    saving.save_preset(model, tmp_path / "ours")
    with left_open_files():
        again = type(task).from_preset(str(tmp_path / "ours"))
    np.testing.assert_allclose(logits(again, ids), logits(task, ids), atol=1e-5)
    assert again.preprocessor.tokenizer.vocabulary_size() == model.tokenizer.vocabulary_size
    back = Hub(str(tmp_path / "ours")).load()
    assert back.tokenizer == model.tokenizer
    assert all(np.array_equal(value, model.network.read()[name]) for name, value in back.network.read().items())


def encoders_ids(family: str, text: str, folder: Path) -> list[int]:
    from kerasgen.models import encoders as architectures
    from kerasgen.models import masked_tokenizers

    architecture = architectures.named(family)
    assert architecture is not None
    return masked_tokenizers.of_transformers(str(folder / "files"), architecture).encode(text)


def test_what_keras_hub_would_compute_otherwise_is_kept_in_a_form_of_its_own(tmp_path: Path) -> None:
    model = Hub(str(encoders.write("bert_relu", tmp_path / "theirs"))).load()
    saving.save_preset(model, tmp_path / "ours")
    assert not list((tmp_path / "ours").glob("*.h5"))
    back = Hub(str(tmp_path / "ours")).load()
    assert back.network.config == model.network.config
    assert back.tokenizer == model.tokenizer
    assert all(np.array_equal(value, model.network.read()[name]) for name, value in back.network.read().items())


def test_a_preset_without_a_head_is_read_with_a_new_one_and_a_warning(tmp_path: Path) -> None:
    task = task_of("roberta", tmp_path / "files")
    task.backbone.save_to_preset(str(tmp_path / "theirs"))
    task.preprocessor.tokenizer.save_to_preset(str(tmp_path / "theirs"))
    with pytest.warns(KerasgenWarning, match="without a masked language model's head"):
        model = Hub(str(tmp_path / "theirs")).load()
    with pytest.warns(KerasgenWarning):
        again = Hub(str(tmp_path / "theirs")).load()
    assert np.array_equal(model.network.read()["head.dense.kernel"], again.network.read()["head.dense.kernel"])


def test_weights_are_stored_in_float16_where_it_is_asked_for(tmp_path: Path) -> None:
    model = Hub(str(encoders.write("roberta", tmp_path / "theirs"))).load()
    saving.save_preset(model, tmp_path / "ours", dtype="float16")
    back = Hub(str(tmp_path / "ours")).load().network.read()
    for name, value in model.network.read().items():
        assert np.array_equal(back[name], value.astype(np.float16).astype(np.float32))
