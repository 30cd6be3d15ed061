"""A corpus that was read once is read from the cache, with the same documents and counts, or read again."""

from __future__ import annotations

import json
import lzma
import tarfile
from functools import partial
from pathlib import Path

import pytest

from kerasgen.corpora import document_cache
from kerasgen.corpora.base import Conversation, CorpusTally, Document, Part
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.corpora.held_out_split import DividedCorpus
from kerasgen.tokens.corpus_scan import Survey, Surveyed


def _poem(number: int, line: str) -> dict[str, object]:
    return {"title": f"第{number}", "author": "無名", "paragraphs": [f"{line}，{line}。"], "id": f"poem-{number}"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    poems = [_poem(0, "白日依山盡"), _poem(1, "黃河入海流"), _poem(2, "黃河入海流"), _poem(3, "□□□□□")]
    folder = tmp_path / "全唐诗"
    folder.mkdir()
    (folder / "poet.tang.0.json").write_text(json.dumps(poems, ensure_ascii=False), encoding="utf-8")
    path = tmp_path / "poems.tar.xz"
    with tarfile.open(path, "w:xz") as file:
        file.add(folder, "全唐诗")
    return path


def _read(archive: Path, cache: Path | None, **settings: object) -> tuple[list[Document], dict[str, object]]:
    corpus = DividedCorpus(ChinesePoetry(path=str(archive), dynasty="tang"), 0.5, cache=cache, **settings)  # type: ignore[arg-type]
    assert corpus.division is not None
    tally = CorpusTally()
    return list(corpus.documents(tally)), tally.to_dict()


def _never(*_: object, **__: object) -> None:
    raise AssertionError("the archive is read")


def _files(cache: Path) -> list[Path]:
    return sorted((cache / document_cache.FOLDER).glob("*.json"))


def test_second_reading_has_the_same_documents_and_counts(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = _read(archive, None)
    assert without[1]["dropped"] == {"duplicate text": 1, "lacuna": 1}
    assert _read(archive, tmp_path / "cache") == without
    monkeypatch.setattr(ChinesePoetry, "documents", _never)
    assert _read(archive, tmp_path / "cache") == without
    with pytest.raises(AssertionError, match="read"):
        _read(archive, tmp_path / "elsewhere")


def _surveyed(archive: Path, cache: Path | None, **settings: object) -> tuple[object, Surveyed]:
    corpus = DividedCorpus(ChinesePoetry(path=str(archive), dynasty="tang"), 0.5, cache=cache, **settings)  # type: ignore[arg-type]
    noted = partial(corpus.noted, "1-survey")
    return corpus.division, Survey(corpus.documents, held_out=corpus.division, noted=noted).found


def test_what_a_survey_found_is_known_without_the_documents(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, without = tmp_path / "cache", _surveyed(archive, None)
    assert without[1].tally.dropped == {"duplicate text": 1, "lacuna": 1}
    assert _surveyed(archive, cache) == without
    with monkeypatch.context() as patch:
        patch.setattr(DividedCorpus, "documents", _never)
        assert _surveyed(archive, cache) == without
        with pytest.raises(AssertionError, match="read"):
            _surveyed(archive, cache, max_documents=1)
    archive.write_bytes(lzma.compress(lzma.decompress(archive.read_bytes()).replace("白日".encode(), "明月".encode())))
    assert _surveyed(archive, cache)[1].digest != without[1].digest


def test_a_corpus_that_changes_while_it_is_surveyed_is_not_remembered(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter("abcdefgh")
    monkeypatch.setattr(ChinesePoetry, "fingerprint", lambda _: next(names))
    found = _surveyed(archive, tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").rglob("*survey*")] == []
    assert found == _surveyed(archive, None)


def test_another_sample_or_other_bytes_are_read_anew(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _read(archive, cache)
    assert len(_read(archive, cache, max_documents=1)[0]) == 1
    assert len(_files(cache)) == 2
    content = lzma.decompress(archive.read_bytes()).replace("白日".encode(), "明月".encode())
    archive.write_bytes(lzma.compress(content))
    assert _read(archive, cache)[0][0].text.startswith("明月")


def test_other_code_reads_anew(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _read(archive, tmp_path / "cache")
    monkeypatch.setattr(document_cache, "code_digest", lambda: "another")
    _read(archive, tmp_path / "cache")
    assert len(_files(tmp_path / "cache")) == 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-7], lambda data: b"", lambda data: data.replace(b"poem", b"poen")]
)
def test_damaged_file_is_read_again_and_mended(archive: Path, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    cache = tmp_path / "cache"
    without = _read(archive, cache)
    (file,) = _files(cache)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert _read(archive, cache) == without
    assert file.read_bytes() == whole


def test_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "MOST_BYTES", 1000)
    paths = [document_cache.path_of(tmp_path, name) for name in "abc"]
    for path in paths:
        document_cache.write(path, [Document("x" * 300, "id")], CorpusTally(1, 1, 300))
    assert sum(path.exists() for path in paths) == 2
    assert paths[-1].exists()
    document_cache.write(paths[0], [Document("x" * 1100, "id")], CorpusTally(1, 1, 1100))
    assert not paths[0].exists()


@pytest.mark.parametrize(
    "document",
    [
        Document("text", "id", {"a": (1, 2)}),
        Document("text", "id", {"a": float("nan")}),
        Document("text", "id", {"a": b"bytes"}),
        Document.of([Part("te", 0), Part("xt")], "id"),
        Document("text", "id", conversation=Conversation(({"role": "user", "content": "text"},))),
    ],
)
def test_what_json_would_change_is_not_kept(tmp_path: Path, document: Document) -> None:
    path = document_cache.path_of(tmp_path, "key")
    document_cache.write(path, [document], CorpusTally(1, 1, 4))
    assert not path.exists()


def test_lone_surrogates_come_back(tmp_path: Path) -> None:
    path = document_cache.path_of(tmp_path, "key")
    documents = [Document("a\ud800", "id", {"title": "\udfff", "nothing": None, "length": 5})]
    document_cache.write(path, documents, CorpusTally(1, 1, 2))
    assert document_cache.read(path) == (documents, CorpusTally(1, 1, 2))


def test_directories_and_converted_scripts_have_no_fingerprint(archive: Path) -> None:
    assert ChinesePoetry(path=str(archive)).fingerprint() is not None
    assert ChinesePoetry(path=str(archive.parent)).fingerprint() is None
    assert ChinesePoetry(path=str(archive), script="simplified").fingerprint() is None
    assert ChinesePoetry(path=str(archive), form="five").fingerprint() != ChinesePoetry(path=str(archive)).fingerprint()
