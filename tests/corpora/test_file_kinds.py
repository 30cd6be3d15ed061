"""JSON in each of its layouts, and files of another kind than was asked for: read, or called what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasgen.corpora import json_records, resolving
from kerasgen.corpora.base import CorpusSource, CorpusTally
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.corpora.file_kinds import json_kind, kind_of
from kerasgen.corpora.files import Csv, Jsonl, Text
from kerasgen.errors import CorpusArgumentError, CorpusFormatError

pytestmark = pytest.mark.one_backend


def texts(corpus: CorpusSource, tally: CorpusTally | None = None) -> list[str]:
    return [document.text for document in corpus.documents(tally)]


RECORDS = [{"text": "one\ntwo", "n": 1}, {"text": ["three", "four"], "n": 2}, {"text": "五", "n": 3}]
EXPECTED = ["one\ntwo", "three\nfour", "五"]
LAYOUTS = {
    "lines": "\n".join(json.dumps(record) for record in RECORDS),
    "array": json.dumps(RECORDS, ensure_ascii=False),
    "array over lines": json.dumps(RECORDS, indent=2),
    "array, an item a line": "[\n" + ",\n".join(json.dumps(record) for record in RECORDS) + "\n]\n",
    "object": json.dumps({"version": 1, "data": RECORDS}),
    "object over lines": json.dumps({"version": 1, "data": RECORDS}, indent=1),
    "byte order mark": "\ufeff" + json.dumps(RECORDS),
}


class TestJson:
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.txt", "a.json.gz", "a.jsonl.xz"])
    def test_every_layout_is_read_whatever_the_name(self, tmp_path: Path, layout: str, name: str) -> None:
        data = LAYOUTS[layout].encode()
        data = gzip.compress(data) if name.endswith("gz") else lzma.compress(data) if name.endswith("xz") else data
        (tmp_path / name).write_bytes(data)
        found = list(Jsonl(tmp_path / name).documents())
        assert [document.text for document in found] == EXPECTED
        assert [document.metadata for document in found] == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert len({document.id for document in found}) == 3

    def test_an_array_of_texts_needs_no_field(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('["one", " ", "two"]', encoding="utf-8")
        tally = CorpusTally()
        assert texts(Jsonl(tmp_path / "a.json"), tally) == ["one", "two"]
        assert tally.dropped == {"empty": 1}

    def test_one_record_alone_is_a_record(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"text": "one", "tags": ["x"]}', encoding="utf-8")
        assert texts(Jsonl(tmp_path / "a.json")) == ["one"]
        (tmp_path / "a.json").write_text('{\n "text": ["one", "two"],\n "tags": ["x"]\n}', encoding="utf-8")
        assert texts(Jsonl(tmp_path / "a.json")) == ["one\ntwo"]

    def test_a_folder_of_json_files_is_read_where_no_json_lines_are(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('["one"]', encoding="utf-8")
        assert texts(Jsonl(tmp_path)) == ["one"]
        (tmp_path / "b.jsonl").write_text('{"text": "two"}', encoding="utf-8")
        assert texts(Jsonl(tmp_path)) == ["two"], "what describes a data set is no part of it"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('[{"text": "a"},\n {"text" "b"}]', "line 2 is not JSON"),
            ('[{"text": "a"},\n\n {"text": "b"}', "line 3 is cut"),
            ('[{"text": "a"}\n {"text": "b"}]', r"line 2 has '\{' where ',' must stand"),
            ('[{"text":\n"a"}]\n]', "line 3 goes on after the array's end"),
            ('[{"text": "a"},]', "is not JSON"),
            ('[{"text": "a', "Unterminated"),
            ('[\n{"text": 5}]', "line 2: the field 'text' is a number"),
            ('[\n{"title": "a"}]', "there is no field 'text'; there are: 'title'"),
            ("[\n5,6]", "line 2 is no JSON object but a number"),
            ('{\n"a": [1],\n"b": [2]\n}', "there is no field 'text'; there are: 'a', 'b'"),
            ('{\n"a": [\n}', "line 3, column 1 is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("[" + "9" * 5_000 + "]", "is not JSON"),
        ],
    )
    def test_a_fault_is_named_with_its_line(self, tmp_path: Path, content: str, said: str) -> None:
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        with pytest.raises(CorpusFormatError, match=said) as caught:
            texts(Jsonl(tmp_path / "a.json"))
        assert caught.value.line is not None

    def test_what_stands_before_a_fault_is_kept_where_it_is_skipped(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": 5}, {"text": "b"}, {"te', encoding="utf-8")
        tally = CorpusTally()
        assert texts(Jsonl(tmp_path / "a.json", on_error="skip"), tally) == ["a", "b"]
        assert tally.dropped == {"field 'text' not text": 1, "damaged file": 1}

    def test_no_more_of_an_array_is_read_than_is_asked_for(self, tmp_path: Path) -> None:
        whole = json.dumps([{"text": f"text {n} " + "x" * 1_000} for n in range(1_000)])
        (tmp_path / "a.json").write_text(whole + "this is no JSON", encoding="utf-8")
        documents = Jsonl(tmp_path / "a.json").documents()
        assert next(documents).text.startswith("text 0")
        with pytest.raises(CorpusFormatError, match="goes on after"):
            list(documents)

    def test_an_item_without_end_is_an_error_and_not_all_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KERASGEN_MAX_LINE_BYTES", "300000")
        (tmp_path / "a.json").write_text('["' + "x" * 2_000_000, encoding="utf-8")
        with pytest.raises(CorpusFormatError, match="a value of more than 300,000 characters"):
            texts(Jsonl(tmp_path / "a.json"))

    @given(items=st.lists(st.recursive(st.text() | st.integers() | st.floats(allow_nan=False), st.lists, max_leaves=5)))
    def test_an_array_has_the_items_that_python_finds_in_it(
        self, tmp_path_factory: pytest.TempPathFactory, items: list[Any]
    ) -> None:
        path = tmp_path_factory.mktemp("array") / "a.json"
        path.write_text(json.dumps(items), encoding="utf-8")
        assert [record.value for record in json_records._items(path)] == items

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
    def test_where_a_piece_ends_makes_no_difference(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        items = ['五\u2028\\"é', -12.5e-3, 123456, True, None, {"a": [{"b": "c\n"}]}, "\ud83d"]
        (tmp_path / "a.json").write_text(json.dumps(items, indent=1), encoding="utf-8")
        whole = list(json_records._texts(tmp_path / "a.json"))
        monkeypatch.setattr(
            json_records,
            "_texts",
            lambda path: (text[at : at + size] for text in whole for at in range(0, len(text), size)),
        )
        monkeypatch.setattr(json_records, "CHUNK_BYTES", 1)
        assert [record.value for record in json_records._items(tmp_path / "a.json")] == items


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO(b""))
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "text")
    return stream.getvalue()


FOREIGN = {
    "a gzip file": gzip.compress(b"some text"),
    "a bzip2 file": bz2.compress(b"some text"),
    "an xz file": lzma.compress(b"some text"),
    "a zip archive": zipped(),
    "a tar archive": tar(),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj",
    "an RTF document": b"{\\rtf1\\ansi text}",
    "an old Microsoft Office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "a Parquet file": b"PAR1\x15\x04\x15",
    "an SQLite database": b"SQLite format 3\x00" + bytes(100),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a PNG image": b"\x89PNG\r\n\x1a\n" + bytes(30),
    "text in UTF-16": "some text".encode("utf-16"),
    "a binary file": bytes(range(256)) * 4,
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


class TestKinds:
    @pytest.mark.parametrize("corpus", [Text, Jsonl, Csv])
    @pytest.mark.parametrize("kind", FOREIGN)
    def test_a_file_of_another_kind_is_called_what_it_is(self, tmp_path: Path, corpus: Any, kind: str) -> None:
        (tmp_path / "a.txt").write_bytes(FOREIGN[kind])
        with pytest.raises(CorpusFormatError, match=f"but {re.escape(kind)}"):
            texts(corpus(tmp_path / "a.txt"))
        tally = CorpusTally()
        assert texts(corpus(tmp_path / "a.txt", on_error="skip"), tally) == []
        ((reason, count),) = tally.dropped.items()
        assert (kind in reason, count) == (True, 1)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_text_does_not_train_on_raw_json_unless_it_is_told_to(self, tmp_path: Path, layout: str) -> None:
        (tmp_path / "a.txt").write_text(LAYOUTS[layout], encoding="utf-8")
        with pytest.raises(CorpusFormatError, match=r"JSON.*jsonl:path=…,field=….*check_kind=False"):
            texts(Text(tmp_path / "a.txt", split="line"))
        assert texts(Text(tmp_path / "a.txt", check_kind=False)) == [LAYOUTS[layout].removeprefix("\ufeff")]
        with pytest.raises(CorpusFormatError, match=r"no CSV but.*JSON"):
            texts(Csv(tmp_path / "a.txt"))

    def test_a_long_array_is_known_by_its_beginning(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(json.dumps(["text " * 100] * 1_000), encoding="utf-8")
        with pytest.raises(CorpusFormatError, match="a JSON array"):
            texts(Text(tmp_path / "a.txt"))

    def test_text_does_not_train_on_a_table_by_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("id,text\n1,one\n", encoding="utf-8")
        with pytest.raises(CorpusFormatError, match=r"a CSV file, by its name.*csv:path=…"):
            texts(Text(tmp_path / "a.csv"))

    @pytest.mark.parametrize(
        "text",
        [
            "[Verse 1]\nOne, two\n",
            "[1] A footnote.\n[2] Another.\n",
            "{curly} words\n",
            '"Quoted," she said.\n',
            "[]",
            "{}\n",
            "[1, 2]",
            "{x | x > 0}\n",
            '["No," he said]\n',
            "ID3 is a format of tags.\n",
            "GIF8 and PAR1 are magic.\n",
            "BZh\n",
            "",
            "\x1b[1mbold\x1b[0m\f",
        ],
    )
    def test_text_that_begins_like_something_else_stays_text(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        assert texts(Text(tmp_path / "a.txt")) == [text] * bool(text)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
    def test_text_in_the_encoding_that_was_named_is_text(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "a.txt").write_text("some text " * 100, encoding=encoding)
        assert texts(Text(tmp_path / "a.txt", encoding=encoding)) == ["some text " * 100]

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
    def test_text_in_an_encoding_without_a_mark_is_called_what_it_is(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "a.txt").write_bytes("some text 春".encode(encoding))
        with pytest.raises(CorpusFormatError, match=f"encoding='{encoding}'"):
            texts(Text(tmp_path / "a.txt"))
        assert texts(Text(tmp_path / "a.txt", encoding=encoding)) == ["some text 春"]

    @given(st.text())
    def test_no_text_is_taken_for_a_file_of_bytes(self, text: str) -> None:
        kind = kind_of(text.encode()[:250])
        assert kind is None or text.startswith(("%PDF-", "{\\rtf", "version https://git-lfs"))

    @given(st.lists(st.text(min_size=1), min_size=1) | st.dictionaries(st.text(), st.text(), min_size=1))
    def test_all_json_with_texts_in_it_is_known(self, value: Any) -> None:
        assert json_kind(json.dumps(value).encode()) == f"a JSON {'array' if isinstance(value, list) else 'object'}"

    def test_a_compressed_name_for_what_is_not_says_what_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt.gz").write_bytes(FOREIGN["a PDF"])
        with pytest.raises(CorpusFormatError, match=r"is not a sound \.gz file \(it is a PDF\)"):
            texts(Text(tmp_path / "a.txt.gz"))
        (tmp_path / "a.txt.gz").write_text("plain", encoding="utf-8")
        with pytest.raises(CorpusFormatError, match=r"is not a sound \.gz file \(it is not compressed"):
            texts(Text(tmp_path / "a.txt.gz"))
        (tmp_path / "a.txt.gz").write_bytes(FOREIGN["an xz file"])
        with pytest.raises(CorpusFormatError, match=r"is not a sound \.gz file \(it is an xz file\)"):
            texts(Text(tmp_path / "a.txt.gz"))

    @pytest.mark.parametrize("kind", ["a PDF", "a PNG image", "an HDF5 file"])
    def test_poems_from_what_is_no_archive_are_refused_by_its_kind(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "poems.tar.gz").write_bytes(FOREIGN[kind])
        with pytest.raises(CorpusFormatError, match=rf"It is no archive but {kind}"):
            list(ChinesePoetry(path=str(tmp_path / "poems.tar.gz")).documents())

    def test_a_path_to_json_is_told_which_corpus_reads_it(self) -> None:
        with pytest.raises(CorpusArgumentError, match=r"Write 'jsonl:path=poems\.json'"):
            resolving.resolve("poems.json")

    def test_the_switch_is_true_or_false(self) -> None:
        with pytest.raises(CorpusArgumentError, match="check_kind must be True or False"):
            Text("a.txt", check_kind="no")  # type: ignore[arg-type]
