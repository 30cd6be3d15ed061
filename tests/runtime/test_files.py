"""What lies at an artefact's path is what was exported, or loading it says what is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import GenerateArgumentError, ModelFormatError
from kerasgen.runtime import metadata, verifying

pytest.importorskip("ai_edge_litert", reason="the runtime of TFLite artefacts is an extra: kerasgen[export]")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """An artefact that was written without its proof, which is not what is tested here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(kg.TFLiteExporter, "_prove", lambda *arguments: {})
    exporter = kg.TFLiteExporter(cache_length=32, prefill_lengths=(8,), decode_lengths=(), beams=0)
    path = tmp_path_factory.mktemp("original") / "poet.tflite"
    exporter.export(tiny_gpt2(num_layers=1), path)
    patch.undo()
    return path


@pytest.fixture
def path(original, tmp_path):
    for file in original.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / original.name


def sealed(said):
    """What a JSON would be whose digest somebody who changed it had mended."""
    return said | {"digest": metadata.digest_of(said)}


def of_other_weights(content: bytes) -> bytes:
    """A flatbuffer of one shape whose largest table holds other weights."""
    from kerasgen.exporters.tflite import quantize

    _, model = quantize.read(content)
    largest = max((bytes(one.data) for one in model.buffers if one.data is not None), key=len)
    changed = np.frombuffer(largest, np.float32)[::-1].tobytes()
    assert content.count(largest) == 1
    return content.replace(largest, changed)


def ids(path: Path, **settings) -> list[list[int]]:
    return kg.load_artefact(path, **settings).generate_ids([[5, 6, 7]], max_new_tokens=12)


@pytest.mark.parametrize("settings", [{}, {"weight_cache": None}])
def test_a_file_of_another_export_of_one_shape_is_told(path, settings):
    """Its size is the same, and so are its tokenizer and its signatures."""
    ids(path, **settings)
    path.write_bytes(of_other_weights(path.read_bytes()))
    with pytest.raises(ModelFormatError, match="SHA-256"):
        kg.load_artefact(path, **settings)


def test_weights_kept_of_one_export_never_serve_another(path, tmp_path):
    kept = tmp_path / "kept" / "weights"
    before = ids(path, weight_cache=kept)
    content = of_other_weights(path.read_bytes())
    path.write_bytes(content)
    report = path.with_name(path.name + ".json")
    said = json.loads(report.read_text(encoding="utf-8"))
    report.write_text(json.dumps(sealed(said | {"sha256": hashlib.sha256(content).hexdigest()})), encoding="utf-8")
    assert ids(path, weight_cache=kept) == ids(path, weight_cache=None) != before


def test_a_file_that_was_hashed_once_is_not_hashed_again(path, tmp_path, monkeypatch):
    kept = tmp_path / "kept" / "weights"
    kg.load_artefact(path, weight_cache=kept)
    with monkeypatch.context() as patch:
        patch.setattr(verifying, "sha256_of", None)  # would be called
        kg.load_artefact(path, weight_cache=kept)
    path.touch()
    with pytest.raises(ModelFormatError, match="SHA-256"):
        verifying.check_sha256(path, "0", weight_cache=kept)


def test_files_that_were_renamed_together_are_an_artefact(path):
    before = ids(path)
    for file in list(path.parent.glob("poet.tflite*")):
        file.rename(file.with_name(file.name.replace("poet", "六 verses")))
    assert ids(path.with_name("六 verses.tflite")) == before


@pytest.mark.parametrize("key", ["files", "sha256", "graph", "tokenizer"])
def test_a_report_that_lacks_something_is_told(path, key):
    report = path.with_name(path.name + ".json")
    said = json.loads(report.read_text(encoding="utf-8"))
    for damaged in ({name: value for name, value in said.items() if name != key}, said | {key: 7}):
        for mended in (False, True):
            report.write_text(json.dumps(sealed(damaged) if mended else damaged), encoding="utf-8")
            with pytest.raises(ModelFormatError, match=key if mended else "digest is another"):
                kg.load_artefact(path)


def test_a_weight_cache_that_can_not_be_written_is_told_if_it_was_asked_for(path, tmp_path, monkeypatch):
    """The one in the user's cache directory is done without."""
    import platformdirs

    (tmp_path / "a file").write_text("no directory", encoding="utf-8")
    for wrong in (tmp_path / "a file" / "weights", tmp_path, 5):
        with pytest.raises(GenerateArgumentError, match="weight_cache"):
            kg.load_artefact(path, weight_cache=wrong)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "a file" / name)
    assert ids(path) == ids(path, weight_cache=None)


@pytest.mark.parametrize("wrong", [{"foo": 1}, {"threads": 0}, {"threads": -3}, {"threads": "2"}, {"threads": True}])
def test_a_wrong_setting_of_a_runtime_is_told(path, wrong):
    with pytest.raises(GenerateArgumentError, match="Received"):
        kg.load_artefact(path, **wrong)


def test_a_tilde_is_the_home_directory(path, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert ids(Path("~") / path.name, weight_cache=None) == ids(path, weight_cache=None)
