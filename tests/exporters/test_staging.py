"""What lies at a path is replaced only where the same exporter wrote it and was told to, and never lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kerasgen.errors import ExportArgumentError, ExportError
from kerasgen.exporters import staging

pytestmark = pytest.mark.one_backend


def write(path: Path, content: str, *, exporter: str = "tflite", overwrite: bool = False) -> None:
    """An artefact of one file, with a tokenizer beside it."""
    with staging.staged(path, overwrite=overwrite, exporter=exporter, beside=staging.BESIDE) as stage:
        stage.write_text(content, encoding="utf-8")
        stage.with_name(f"{stage.name}.tokenizer.json").write_text("{}", encoding="utf-8")
        staging.write_report(stage, {}, exporter=exporter)


def write_directory(path: Path, content: str, *, exporter: str = "saved_model", overwrite: bool = False) -> None:
    with staging.staged(path, overwrite=overwrite, exporter=exporter) as stage:
        (stage / "assets").mkdir(parents=True)
        (stage / "assets" / "weights").write_text(content, encoding="utf-8")
        staging.write_report(stage, {}, exporter=exporter)


def texts(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8")
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("name", ["poet.tflite.md", "poet.tflite.json", "poet.tflite.tokenizer.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_persons_file_beside_an_artefact_that_is_not_there_yet_stays(tmp_path, name, overwrite):
    (tmp_path / name).write_text('{"mine": 1}', encoding="utf-8")
    with pytest.raises(ExportArgumentError, match="there already"):
        write(tmp_path / "poet.tflite", "new", overwrite=overwrite)
    assert texts(tmp_path) == {name: '{"mine": 1}'}


@pytest.mark.parametrize("name", ["poet[1].tflite", "po*t.tflite", "p?et 春.tflite"])
def test_a_name_is_no_pattern(tmp_path, name):
    path = tmp_path / name
    write(tmp_path / "poet1.tflite", "another")
    write(path, "old")
    write(path, "new", overwrite=True)
    said = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert said["files"] == {name: 3, f"{name}.tokenizer.json": 2}
    assert said["bytes"] == 5
    assert path.read_text(encoding="utf-8") == "new"


def test_an_artefact_is_replaced_by_its_own_exporter_alone(tmp_path):
    path = tmp_path / "poet.tflite"
    write(path, "old")
    before = texts(tmp_path)
    for settings in ({}, {"exporter": "gguf", "overwrite": True}):
        with pytest.raises(ExportArgumentError, match="there already"):
            write(path, "new", **settings)
        assert texts(tmp_path) == before
    write(path, "new", overwrite=True)
    assert path.read_text(encoding="utf-8") == "new"
    assert set(texts(tmp_path)) == set(before)


def test_a_file_is_never_written_over_a_directory_nor_a_directory_over_a_file(tmp_path):
    write_directory(tmp_path / "poet", "old")
    write(tmp_path / "file", "old", exporter="saved_model")
    before = texts(tmp_path)
    with pytest.raises(ExportArgumentError, match="is a directory"):
        write(tmp_path / "poet", "new", exporter="saved_model", overwrite=True)
    with pytest.raises(ExportArgumentError, match="is a file"):
        write_directory(tmp_path / "file", "new", overwrite=True)
    assert texts(tmp_path) == before


def test_a_directory_in_which_a_person_put_something_stays(tmp_path):
    path = tmp_path / "poet_saved_model"
    write_directory(path, "old")
    write_directory(path, "newer", overwrite=True)
    (path / "notes.txt").write_text("mine", encoding="utf-8")
    before = texts(tmp_path)
    with pytest.raises(ExportArgumentError, match=r"notes\.txt"):
        write_directory(path, "newest", overwrite=True)
    assert texts(tmp_path) == before


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_while_files_move_leaves_the_old_artefact(tmp_path, monkeypatch, at, error):
    """Whichever of the moves it comes before: four files make room, and four come."""
    path, replace, count = tmp_path / "poet.tflite", Path.replace, 0
    write(path, "old")
    before = texts(tmp_path)

    def interrupted(source: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == at:
            raise error
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises((KeyboardInterrupt, ExportError)) as caught:
        write(path, "new", overwrite=True)
    assert isinstance(caught.value.__cause__ or caught.value, error)
    assert texts(tmp_path) == before
