"""What lies at an artefact's path is what was exported, or loading it says what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
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


@pytest.mark.slow
def test_a_weight_cache_that_is_not_what_xnnpack_left_is_made_anew(path, tmp_path):
    """XNNPACK looks at its first bytes alone: it would take others for weights, or for the place of weights."""
    kept = tmp_path / "kept" / "weights"
    whole = ids(path, weight_cache=kept)
    content = kept.read_bytes()
    damages = [b"", content[:64], content[: len(content) // 2], content + bytes(4096), bytes(len(content))]
    for place in (0, 40, len(content) // 2, *range(len(content) - 640, len(content), 64)):
        damages.append(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
    for damaged in damages:
        kept.write_bytes(damaged)
        assert ids(path, weight_cache=kept) == whole
        assert kept.stat().st_size == len(content)
        known = kept.stat()
        assert ids(path, weight_cache=kept) == whole
        assert kept.stat().st_ino == known.st_ino, "it is not made again"


FULL = """
import json, resource, sys
import kerasgen as kg
from kerasgen.errors import GenerateArgumentError

path, kept, most = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(most),) * 2)
found = [kg.load_artefact(path).generate_ids([[5, 6, 7]], max_new_tokens=12)]
try:
    found.append(kg.load_artefact(path, weight_cache=kept).generate_ids([[5, 6, 7]], max_new_tokens=12))
except GenerateArgumentError as error:
    found.append(str(error))
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits on a file's size are POSIX's")
def test_a_weight_cache_that_finds_no_room_ends_no_process(path, tmp_path):
    """XNNPACK would abort in the middle of it. The one in the user's cache directory is done without."""
    whole, size = ids(path, weight_cache=None), path.stat().st_size
    for most in (5000, size // 2, size, 4 * size + (1 << 21)):
        environment = os.environ | {"KERASGEN_CACHE": str(tmp_path / str(most)), "TMPDIR": str(tmp_path)}
        child = subprocess.run(
            [sys.executable, "-c", FULL, str(path), str(tmp_path / "kept"), str(most)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        default, asked = json.loads(child.stdout.splitlines()[-1])
        assert default == whole
        assert asked == whole if most > size else "`weight_cache` can't be written: [Errno 27]" in asked
        assert (tmp_path / "kept").exists() == (most > size)


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
