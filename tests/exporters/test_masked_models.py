"""Masked language models become KerasHub presets and transformers directories, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest

import kerasgen as kg
from kerasgen.errors import ExportArgumentError, ExportError

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.write("roberta", tmp_path_factory.mktemp("roberta"))


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["preset", "transformers"])
def test_a_fresh_process_computes_the_same_and_so_does_what_is_read_back(
    folder: Path, tmp_path: Path, exporter: str
) -> None:
    pipe = kg.Pipeline(model=str(folder))
    artefact = pipe.export(tmp_path / "out", exporter=exporter)
    parity = artefact.report["parity"]
    assert parity["max_abs_difference"] < 1e-4
    assert parity["fill_equal"]
    back = kg.Pipeline(model=str(tmp_path / "out"))
    text = f"a b {pipe.model.mask_token} c"
    assert [way.token_ids for way in back.fill(text)] == [way.token_ids for way in pipe.fill(text)]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["bert", "distilbert", "albert_groups", "deberta", "xlm", "roberta_types"])
def test_every_architecture_becomes_a_transformers_directory(name: str, tmp_path: Path) -> None:
    pipe = kg.Pipeline(model=str(encoders.write(name, tmp_path / "theirs")))
    report = pipe.export(tmp_path / "ours", exporter="transformers").report
    assert report["parity"]["max_abs_difference"] < 1e-4


@pytest.mark.parametrize("name", ["poet.gguf", "poet.tflite", "poet.litertlm", "poet_saved_model"])
def test_other_formats_are_refused_before_the_model_is_loaded(folder: Path, tmp_path: Path, name: str) -> None:
    pipe = kg.Pipeline(model=str(folder))
    with pytest.raises(ExportArgumentError, match="predicts masked tokens"):
        pipe.export(tmp_path / name)
    assert pipe._model is None
    assert not list(tmp_path.iterdir())


def test_a_preset_that_would_compute_another_model_is_refused(tmp_path: Path) -> None:
    pipe = kg.Pipeline(model=str(encoders.write("bert_relu", tmp_path / "theirs")))
    with pytest.raises(ExportArgumentError, match="activation='gelu_approximate' instead of 'relu'"):
        pipe.export(tmp_path / "out", exporter="preset")


@pytest.mark.slow
def test_files_that_compute_another_model_are_not_handed_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = kg.Pipeline(model=str(folder))
    network: Any = pipe.model.network
    read = network.read
    monkeypatch.setattr(
        network, "read", lambda: {name: np.where(value > 0.5, value + 0.1, value) for name, value in read().items()}
    )
    with pytest.raises(ExportError, match="another model"):
        pipe.export(tmp_path / "out", exporter="transformers")
    assert not (tmp_path / "out").exists()
