"""Masked language models compute what transformers and KerasHub compute of the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest

from kerasgen.errors import ModelFormatError
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.models.hub import Hub


def load(folder: Path) -> Any:
    model = Hub(str(folder)).load()
    assert isinstance(model, MaskedLanguageModel)
    return model


def logits(model: Any, ids: Any, segments: Any = None) -> Any:
    positions = np.tile(np.arange(ids.shape[1], dtype=np.int32), (len(ids), 1))
    segments = np.ones_like(ids) if segments is None else segments
    return np.asarray(model.network({"token_ids": ids, "positions": positions, "segment_ids": segments}))


@pytest.mark.parametrize("name", encoders.MODELS)
def test_logits_and_loss_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = load(encoders.write(name, tmp_path))
    ids, labels = encoders.example(model.vocabulary_size)
    theirs, loss = encoders.logits_and_loss(name)
    ours = logits(model, ids)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    shifted = ours - ours.max(-1, keepdims=True)
    nll = np.log(np.exp(shifted).sum(-1)) - np.take_along_axis(shifted, np.maximum(labels, 0)[..., None], -1)[..., 0]
    assert nll[labels >= 0].mean() == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("name", ["roberta", "deberta"])
def test_a_neighbour_in_the_row_changes_no_bit(name: str, tmp_path: Path) -> None:
    model = load(encoders.write(name, tmp_path))
    ids, _ = encoders.example(model.vocabulary_size)
    segments = np.repeat(np.asarray([[1, 2, 0]], np.int32), (6, 5, 3), axis=1).repeat(2, axis=0)
    other = ids.copy()
    other[:, 6:] = 7
    assert np.array_equal(logits(model, ids, segments)[:, :6], logits(model, other, segments)[:, :6])


def test_a_model_without_the_head_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = encoders.write("bert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFormatError, match="BertForMaskedLM predicts masked tokens"):
        Hub(str(folder)).load()


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    folder = encoders.write("bert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rotary": True}))
    with pytest.raises(ModelFormatError, match="rotary"):
        Hub(str(folder)).load()


def test_a_head_that_is_not_tied_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = encoders.write("bert", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"] + 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelFormatError, match="output head of its own"):
        Hub(str(folder)).load()
