"""Text, JSON lines and CSV: what is in the files comes out, and what can't is named or counted."""

from __future__ import annotations

import builtins
import bz2
import csv
import gzip
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.files import Csv, Jsonl, Text
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError, MissingDependencyError

pytestmark = pytest.mark.one_backend


def zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


def read(source: CorpusSource) -> tuple[list[Document], dict[str, Any]]:
    """Documents and the tally, which adds up."""
    tally = CorpusTally()
    documents = list(source.documents(tally))
    assert tally.read == tally.kept + sum(tally.dropped.values())
    assert tally.kept == len(documents)
    assert tally.characters == sum(len(document.text) for document in documents)
    return documents, tally.to_dict()


def texts(source: CorpusSource) -> list[str]:
    return [document.text for document in read(source)[0]]


def fault(source: CorpusSource) -> CorpusFormatError:
    with pytest.raises(CorpusFormatError) as caught:
        list(source.documents())
    return caught.value


# --- which files


def test_a_folder_is_read_in_the_order_of_names_below_it_too_and_only_the_formats_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.TXT", "c.text", "notes.md", "x.jsonl", ".hidden/a.txt", ".b.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"in {name}")
    documents, _ = read(Text(tmp_path))
    assert [document.id for document in documents] == ["a/y.TXT", "a/z.txt", "b.txt", "c.text"]
    assert [document.text for document in documents] == [f"in {document.id}" for document in documents]


def test_a_glob_reads_whatever_it_matches(tmp_path: Path) -> None:
    for name in ("one.md", "two.md", "three.txt", "deep/four.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert [document.id for document in Text(f"{tmp_path}/*.md").documents()] == ["one.md", "two.md"]
    assert texts(Text(f"{tmp_path}/**/*.md")) == ["deep/four.md", "one.md", "two.md"]


def test_a_relative_glob_is_read_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    assert [document.id for document in Text("*.txt").documents()] == ["a.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "poems[1].txt").write_text("春")
    assert texts(Text(tmp_path / "poems[1].txt")) == ["春"]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.txt").write_text("a")
    assert texts(Text("~/a.txt")) == ["a"]


def test_a_path_that_is_not_there_is_unavailable_and_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CorpusUnavailableError, match=r"no file or folder .*absent\.txt") as caught:
        list(Text(tmp_path / "absent.txt").documents())
    assert caught.value.path == str(tmp_path / "absent.txt")
    with pytest.raises(CorpusUnavailableError, match="No file matches"):
        list(Text(f"{tmp_path}/*.txt").documents())


def test_a_folder_without_a_file_of_the_format_suggests_a_glob(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("a")
    with pytest.raises(CorpusUnavailableError, match=r"ends in \.txt or \.text .*glob"):
        list(Text(tmp_path).documents())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_no_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(CorpusUnavailableError, match="can't be read"):
        list(Text(tmp_path).documents())


# --- compression


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_hold_what_was_put_in(tmp_path: Path, suffix: str) -> None:
    lines = [f"line {number} 春眠不觉晓" for number in range(20_000)]
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESSORS[suffix]("\n".join(lines).encode()))
    assert texts(Text(tmp_path, split="line")) == lines


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_two_compressed_files_in_one_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    """`cat a.gz b.gz > c.gz` is a gzip file; so with the others."""
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESSORS[suffix](b"one\n") + COMPRESSORS[suffix](b"two\n"))
    assert texts(Text(tmp_path, split="line")) == ["one", "two"]


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_compressed_file_cut_short_is_never_a_shorter_corpus(tmp_path: Path, suffix: str, keep: float) -> None:
    content = "\n".join(json.dumps({"text": f"{number * 7919 % 10007} posts"}) for number in range(20_000)).encode()
    whole = COMPRESSORS[suffix](content)
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(whole[: int(len(whole) * keep)])
    error = fault(Jsonl(path))
    assert error.path == str(path)
    assert error.byte is not None
    assert 0 <= error.byte <= len(content)
    assert path.name in str(error)
    assert f"after {error.byte} bytes" in str(error)
    _, tally = read(Jsonl(path, on_error="skip"))
    assert tally["dropped"]["damaged file"] == 1


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_corrupt_compressed_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(b"this was never compressed at all, and is long enough to have a header")
    assert suffix in str(fault(Text(path)))
    assert read(Text(path, on_error="skip"))[1]["dropped"] == {"damaged file": 1}


def test_what_comes_before_the_damage_is_read_and_the_rest_counted(tmp_path: Path) -> None:
    lines = [f"{number * 7919 % 100003}" for number in range(200_000)]
    whole = gzip.compress("\n".join(lines).encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.txt").write_text("still read")
    found = texts(Text(tmp_path, split="line", on_error="skip"))
    assert len(found) > 1000
    assert found[-1] == "still read"
    assert found[:-1] == lines[: len(found) - 1]


def test_zstandard_missing_says_which_extra_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    original = builtins.__import__

    def without_zstandard(name: str, *arguments: Any) -> Any:
        if name == "zstandard":
            raise ImportError(name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_zstandard)
    with pytest.raises(MissingDependencyError, match=r"kerasgen\[zstd\]") as caught:
        list(Text(tmp_path).documents())
    assert caught.value.extra == "zstd"


def test_the_memory_for_a_large_file_is_that_of_a_piece_of_it(tmp_path: Path) -> None:
    """64 MB of lines pass through less than 2 MB."""
    path = tmp_path / "a.txt.gz"
    line = b"x" * 9999 + b"\n"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(6400):
            stream.write(line)
    tracemalloc.start()
    try:
        count = sum(1 for _ in Text(path, split="line").documents())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 6400
    assert peak_bytes < 2_000_000


def test_documents_come_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    """The fault at the end of a large file doesn't delay its first documents."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' * 20_000 + "bad\n")
    assert [document.text for document in islice(Jsonl(path).documents(), 5)] == ["good"] * 5


# --- text


def test_a_file_is_one_document_with_its_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("春\r\n眠\n".encode())
    assert texts(Text(tmp_path)) == ["春\n眠\n"]


def test_a_line_is_a_document_and_a_blank_one_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\n\n  two\r\n　\nthree".encode())
    documents, tally = read(Text(tmp_path, split="line"))
    assert [(document.id, document.text) for document in documents] == [
        ("a.txt:1", "one"),
        ("a.txt:3", "  two"),
        ("a.txt:5", "three"),
    ]
    assert tally["dropped"] == {"empty": 2}


def test_a_paragraph_ends_at_blank_lines_ideographic_ones_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\none\nstill one\n\n \n two\n　\nthree\n", encoding="utf-8")
    documents, tally = read(Text(tmp_path, split="paragraph"))
    assert [(document.id, document.text) for document in documents] == [
        ("a.txt:3", "one\nstill one"),
        ("a.txt:7", " two"),
        ("a.txt:9", "three"),
    ]
    assert tally["dropped"] == {}


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "shift_jis", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("split", ["file", "line", "paragraph"])
def test_every_encoding_is_read_as_python_reads_it(tmp_path: Path, encoding: str, split: Any) -> None:
    """More than a piece of a file, so that a character lies across two pieces."""
    text = "\n".join("風雨聲" * (number % 5 + 1) for number in range(9000))
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    found = texts(Text(tmp_path, split=split, encoding=encoding))
    assert found == (text.split("\n") if split == "line" else [text])


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "two"}')
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext\nthree\n")
    assert texts(Text(tmp_path)) + texts(Jsonl(tmp_path)) + texts(Csv(tmp_path)) == ["one", "two", "three"]


@pytest.mark.parametrize("split", ["file", "line", "paragraph"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\r\n" * 50_000])
def test_bytes_that_are_not_utf8_are_named_by_their_offset(tmp_path: Path, split: Any, start: bytes) -> None:
    before = start + "春\r\nab".encode()
    (tmp_path / "a.txt").write_bytes(before + b"\xff\n\nend")
    error = fault(Text(tmp_path, split=split))
    assert error.byte == len(before)
    assert error.line == before.count(b"\n") + 1
    assert f"line {error.line}, byte {len(before)}: ff" in str(error)


@pytest.mark.parametrize(
    ("split", "kept"), [("file", ["other"]), ("line", ["good", "end", "other"]), ("paragraph", ["end", "other"])]
)
def test_bytes_that_are_not_utf8_spoil_their_own_document_only(tmp_path: Path, split: Any, kept: list[str]) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\n\nend")
    (tmp_path / "b.txt").write_bytes(b"other")
    documents, tally = read(Text(tmp_path, split=split, on_error="skip"))
    assert [document.text for document in documents] == kept
    assert tally["dropped"]["not utf-8"] == 1


def test_utf16_cut_in_a_character_is_named_by_its_offset(tmp_path: Path) -> None:
    whole = ("a" * 50_000).encode("utf-16")
    (tmp_path / "a.txt").write_bytes(whole + b"\x00")
    error = fault(Text(tmp_path, encoding="utf-16"))
    assert error.byte == len(whole)
    assert read(Text(tmp_path, encoding="utf-16", on_error="skip"))[1]["dropped"] == {"damaged file": 1}


WRITABLE = st.characters(codec="utf-8", exclude_characters="\n\r\ufeff")


@given(lines=st.lists(st.text(WRITABLE, min_size=1).filter(str.strip)))
def test_lines_come_out_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes("\n".join(lines).encode("utf-8"))
    assert texts(Text(path, split="line", check_kind=False)) == lines


# --- JSON lines


def test_a_field_is_the_text_and_the_others_are_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"body": "one", "id": "x1", "title": "t"}\n\n{"id": 7, "body": " "}\n{"id": 8, "body": "two"}', "utf-8"
    )
    documents, tally = read(Jsonl(tmp_path, field="body", id_field="id"))
    assert documents == [Document("one", "x1", {"title": "t"}), Document("two", "8", {})]
    assert tally["dropped"] == {"empty": 2}
    assert [document.id for document in Jsonl(tmp_path, field="body").documents()] == ["a.jsonl:1", "a.jsonl:4"]


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b'{"text": "a"', "not JSON", "line 2, column 13 is not JSON"),
        (b'{"text": ' + b"1" * 5000 + b"}", "not JSON", "is not JSON"),
        (b"[" * 100_000, "not JSON", "is not JSON"),
        (b'["a"]', "not a JSON object", "no JSON object but a list"),
        (b'{"body": "a"}', "no field 'text'", "no field 'text'; there are: 'body'"),
        (b'{"text": null}', "field 'text' not text", "is null where text"),
        (b'{"text": 5}', "field 'text' not text", "is a number where text"),
        (b'{"text": "\xff"}', "not utf-8", "byte 29: ff"),
    ],
)
def test_a_line_that_is_not_the_text_asked_for_is_named(tmp_path: Path, line: bytes, reason: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    error = fault(Jsonl(tmp_path))
    assert error.path == str(tmp_path / "a.jsonl")
    assert error.line == 2
    assert message in str(error)
    documents, tally = read(Jsonl(tmp_path, on_error="skip"))
    assert [document.text for document in documents] == ["before", "after"]
    assert tally["dropped"] == {reason: 1}


@pytest.mark.parametrize(("record", "reason"), [({}, "no field 'id'"), ({"id": True}, "field 'id' not an id")])
def test_an_id_that_is_none_is_named(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a", **record}))
    assert "'id'" in str(fault(Jsonl(tmp_path, id_field="id")))
    assert read(Jsonl(tmp_path, id_field="id", on_error="skip"))[1]["dropped"] == {reason: 1}


@given(written=st.lists(st.text(st.characters(codec=None), min_size=1).filter(str.strip)), escaped=st.booleans())
def test_any_text_comes_out_of_json_lines(
    tmp_path_factory: pytest.TempPathFactory, written: list[str], escaped: bool
) -> None:
    """Lone surrogates, NUL and U+2028 too; a line is ended by a line feed and nothing else."""
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl.gz"
    lines = [json.dumps({"text": text}, ensure_ascii=escaped or not text.isprintable()) for text in written]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), compresslevel=1))
    assert texts(Jsonl(path)) == written


def test_the_real_posts_are_all_read(shared_data: Path) -> None:
    documents, tally = read(Jsonl(shared_data / "tifu_posts_2012_2013.jsonl.xz", field="selftext", id_field="id"))
    assert tally["read"] == 988
    assert len({document.id for document in documents}) == len(documents)
    assert all(document.metadata["title"] for document in documents)


# --- CSV


def test_a_column_is_the_text_and_the_others_are_metadata(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["title", "text"], ["t", "one,\n\n“two”"], [], ["u", ""], ["v", 'a "b"']])
    documents, tally = read(Csv(tmp_path))
    assert documents == [
        Document("one,\n\n“two”", "a.csv:2", {"title": "t"}),
        Document('a "b"', "a.csv:7", {"title": "v"}),
    ]
    assert tally["dropped"] == {"empty": 2}


def test_a_text_longer_than_pythons_limit_is_read_and_the_limit_is_left_as_it_was(tmp_path: Path) -> None:
    text = "long " * 100_000
    (tmp_path / "a.csv").write_text(f"text\n{text}\nshort\n")
    limit = csv.field_size_limit()
    documents = Csv(tmp_path).documents()
    assert next(documents).text == text
    assert csv.field_size_limit() == limit
    assert next(documents).text == "short"


def test_the_tab_is_a_delimiter_by_its_name_and_brings_tsv_files(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\ttext\n1\ta, b\n")
    assert Csv(tmp_path, delimiter="tab") == Csv(tmp_path, delimiter="\t")
    assert texts(Csv(tmp_path, delimiter="tab")) == ["a, b"]


def test_a_missing_column_lists_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n1,a\n2,b\n")
    error = fault(Csv(tmp_path))
    assert "no column 'text'; there are: 'id', 'body'" in str(error)
    assert error.line == 1
    assert read(Csv(tmp_path, on_error="skip"))[1]["dropped"] == {"no column 'text'": 2}


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (b"2", "wrong number of columns", "line 4 has 1 columns where the header has 2"),
        (b"2,a,b", "wrong number of columns", "line 4 has 3 columns where the header has 2"),
        (b'2,"a"b', "not CSV", "line 4 starts a row that is not CSV"),
        (b'2,"a\n\xff"', "not utf-8", "line 5, byte 27: ff"),
    ],
)
def test_a_bad_row_is_named_and_spoils_no_other(tmp_path: Path, row: bytes, reason: str, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,"before\nit"\n' + row + b"\n3,after\n")
    error = fault(Csv(tmp_path))
    assert message in str(error)
    documents, tally = read(Csv(tmp_path, on_error="skip"))
    assert [document.text for document in documents] == ["before\nit", "after"]
    assert tally["dropped"] == {reason: 1}


def test_a_quote_that_is_never_closed_is_named_by_the_line_where_it_opens(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\ngood\n"open\nand\non\n')
    assert fault(Csv(tmp_path)).line == 3
    documents, tally = read(Csv(tmp_path, on_error="skip"))
    assert [document.text for document in documents] == ["good"]
    assert tally["dropped"] == {"not CSV": 1}


def test_two_columns_of_the_texts_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,text\na,b\n")
    assert "two columns are called 'text'" in str(fault(Csv(tmp_path)))


@pytest.mark.parametrize(("content", "dropped"), [(b"", "no header"), (b"te\xffxt\na\n", "damaged file")])
def test_a_file_without_a_header_is_an_error(tmp_path: Path, content: bytes, dropped: str) -> None:
    """A row is never taken for the header that could not be read."""
    (tmp_path / "a.csv").write_bytes(content)
    assert fault(Csv(tmp_path)).path == str(tmp_path / "a.csv")
    documents, tally = read(Csv(tmp_path, on_error="skip"))
    assert documents == []
    assert tally["dropped"] == {dropped: 1}


# Not of control characters: a file of many is called binary.
CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\t"), min_size=1).filter(
    str.strip
)


@given(written=st.lists(CELLS))
def test_any_text_comes_out_of_csv(tmp_path_factory: pytest.TempPathFactory, written: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["text"], *([text] for text in written)])
    assert texts(Csv(path)) == written


# --- settings


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Text(""), "path"),
        (lambda: Text(7), "path"),
        (lambda: Text(b"a.txt"), "path"),
        (lambda: Text("a\0b"), "path"),
        (lambda: Text("a", split="word"), "split"),
        (lambda: Text("a", encoding="utf-9"), "encoding"),
        (lambda: Text("a", encoding="hex"), "encoding"),
        (lambda: Csv("a", encoding="utf-9"), "encoding"),
        (lambda: Text("a", encoding=None), "encoding"),
        (lambda: Text("a", on_error="ignore"), "on_error"),
        (lambda: Jsonl("a", field=""), "field"),
        (lambda: Jsonl("a", id_field=""), "id_field"),
        (lambda: Jsonl("a", on_error=None), "on_error"),
        (lambda: Csv("a", field=3), "field"),
        (lambda: Csv("a", delimiter=";;"), "delimiter"),
        (lambda: Csv("a", delimiter='"'), "delimiter"),
        (lambda: Csv("a", on_error="warn"), "on_error"),
    ],
)
def test_a_wrong_setting_is_refused_at_birth(build: Callable[[], CorpusSource], message: str) -> None:
    with pytest.raises(CorpusArgumentError, match=message):
        build()


CHINESE = "今天天氣很好，我在街上走了一會兒。"
SIMPLIFIED = "今天天气很好，我在街上走了一会儿。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(SIMPLIFIED, "gb18030"), (CHINESE, "big5"), ("Grüße aus Köln – «ça va»", "cp1252"), ("Un café déjà bu", "cp1252")],
)
def test_a_text_in_another_encoding_is_told_which_and_that_reads_it(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert f"It looks like {encoding}: pass encoding={encoding!r}." in str(fault(Text(tmp_path)))
    assert texts(Text(tmp_path, encoding=encoding)) == [text]
    (tmp_path / "a.csv").write_bytes(f'day,text\n1,"{text}"\n'.encode(encoding))
    assert f"pass encoding={encoding!r}" in str(fault(Csv(tmp_path)))
    assert texts(Csv(tmp_path, encoding=encoding)) == [text]
    (tmp_path / "a.jsonl").write_bytes(f'{{"text": "{text}"}}\n'.encode(encoding))
    said = str(fault(Jsonl(tmp_path)))
    assert f"It looks like {encoding}. Convert it to UTF-8" in said
    assert "encoding=" not in said, "JSON has no setting for it"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "big5", "shift_jis", "utf-16", "utf-16-le", "utf-32"])
def test_csv_is_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    rows = [["text", "n"], ["一二三，四五", "1"], ['a "b"\nc, d', "2"]]
    with (tmp_path / "a.csv").open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows(rows)
    found, _ = read(Csv(tmp_path, encoding=encoding))
    assert [[document.text, document.metadata["n"]] for document in found] == rows[1:]


def test_bytes_of_no_likely_encoding_are_told_without_a_guess(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a \x81\x8d\x90 b")
    assert "Pass the encoding it is in as encoding=" in str(fault(Text(tmp_path)))


def test_json_in_utf_16_is_told_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"text": "one"}\n'.encode("utf-16"))
    assert "Convert it to UTF-8." in str(fault(Jsonl(tmp_path)))
