"""Masked language models become presets, transformers directories and graphs that fill masks, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest

import kerasgen as kg
from kerasgen.errors import ExportArgumentError, ExportError


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


@pytest.mark.essential
@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("name", ["filler.tflite", "filler_saved_model"])
def test_a_graph_fills_masks_as_the_model_does(folder: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("ai_edge_litert", reason="LiteRT is an extra: kerasgen[export]")
    pipe = kg.Pipeline(model=str(folder))
    artefact = pipe.export(tmp_path / name)
    parity = artefact.report["parity"]
    assert parity["max_abs_difference"] < 1e-4
    assert parity["fill_equal"]
    assert parity["encoded_equal"]
    runtime: Any = kg.load_artefact(artefact.path)
    mask = pipe.model.mask_token
    for text in (f"a {mask} b {mask}", f"{mask}" * 10, f"the {mask}."):  # more masks than a call looks at
        for ours, theirs in zip(runtime.fill(text, top=3), pipe.fill(text, top=3), strict=True):
            assert (ours.text, ours.token_ids) == (theirs.text, theirs.token_ids)
            assert ours.probability == pytest.approx(theirs.probability, rel=1e-4)
    (one, two), (first, second) = (kind.fill(f"{mask} c {mask}", joint=False) for kind in (runtime, pipe))
    assert [way.token_ids for way in (*one, *two)] == [way.token_ids for way in (*first, *second)]
    with pytest.raises(kg.errors.GenerateArgumentError, match="predicts masked tokens: call fill"):
        runtime.generate("a", max_new_tokens=3)
    with pytest.raises(kg.errors.GenerateArgumentError, match="nothing to fill"):
        runtime.fill("a b")
    with pytest.raises(kg.errors.GenerateArgumentError, match="longer than the model's"):
        runtime.fill(mask * (pipe.model.max_sequence_length + 1))
    weights = next(artefact.path.rglob("variables.data*"), artefact.path)
    changed = bytearray(weights.read_bytes())
    changed[len(changed) // 2] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(kg.errors.ModelFormatError, match="SHA-256"):
        kg.load_artefact(artefact.path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["bert", "distilbert", "albert", "deberta", "xlm", "albert_groups", "roberta_types"])
def test_every_architecture_becomes_a_graph(name: str, tmp_path: Path) -> None:
    pipe = kg.Pipeline(model=str(encoders.write(name, tmp_path / "theirs")))
    for target in ("filler.tflite", "filler_saved_model"):
        parity = pipe.export(tmp_path / target).report["parity"]
        assert parity["max_abs_difference"] < 1e-4
        assert parity["fill_equal"]


@pytest.mark.slow
def test_a_graph_of_other_weights_is_not_handed_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kerasgen.models.encoder_network import EncoderNetwork

    pytest.importorskip("ai_edge_litert", reason="LiteRT is an extra: kerasgen[export]")
    read = EncoderNetwork.read
    change = {"layers.1.up.bias": 0.1}
    monkeypatch.setattr(
        EncoderNetwork, "read", lambda self: {key: value + change.get(key, 0) for key, value in read(self).items()}
    )
    with pytest.raises(ExportError, match="fills masks otherwise than the model"):
        kg.Pipeline(model=str(folder)).export(tmp_path / "filler.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "settings"),
    [("a.tflite", {"quantize": "int8"}), ("a.tflite", {"cache_length": 64}), ("a_saved_model", {"num_beams": 3})],
)
def test_settings_without_a_meaning_are_refused_before_the_model_is_loaded(
    folder: Path, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    pipe = kg.Pipeline(model=str(folder))
    with pytest.raises(ExportArgumentError, match=f"{next(iter(settings))}"):
        pipe.export(tmp_path / name, **settings)
    assert pipe._model is None


@pytest.mark.parametrize("name", ["poet.gguf", "poet.litertlm", "poet_web"])
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
