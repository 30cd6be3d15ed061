"""Files that have no end, hold more than they say, or are damaged: an error of ours, in bounded memory and time."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import socket
import subprocess
import sys
import tarfile
import textwrap
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerasgen.corpora.archives import members
from kerasgen.corpora.base import CorpusSource, CorpusTally
from kerasgen.corpora.files import Csv, Jsonl, Text
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError

zstandard = pytest.importorskip("zstandard", reason="reading .zst files is an extra: kerasgen[zstd]")
pytestmark = pytest.mark.one_backend

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def texts(source: CorpusSource) -> list[str]:
    return [document.text for document in source.documents()]


def within(megabytes: int, program: str, *arguments: str) -> str:
    """What a child process prints that may have so much memory more than Python and the corpora take."""
    head = """
        import re, resource, sys
        from pathlib import Path
        from kerasgen.corpora.archives import members
        from kerasgen.corpora.files import Csv, Jsonl, Text
        from kerasgen.errors import CorpusError
        import zstandard
        now = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    """
    limit = f"resource.setrlimit(resource.RLIMIT_AS, (now + ({megabytes} << 20),) * 2)\n"
    text = textwrap.dedent(head) + limit + textwrap.dedent(program)
    run = subprocess.run(
        [sys.executable, "-c", text, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


# --- what is no file


@pytest.mark.parametrize("kind", [Text, Jsonl, Csv])
@pytest.mark.parametrize("place", ["pipe", "socket", "/dev/zero", "/dev/random", "folder with a pipe"])
def test_what_has_no_end_or_is_read_once_is_refused_at_once(
    tmp_path: Path, kind: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(place) if place.startswith("/dev") else tmp_path / "a"
    if place == "pipe":
        os.mkfifo(path)
    elif place == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's whole path may have 107 bytes
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("a")
    elif place == "folder with a pipe":
        path.mkdir()
        for suffix in ("txt", "jsonl", "csv"):
            os.mkfifo(path / f"a.{suffix}")
    with pytest.raises(CorpusUnavailableError, match=r"is a (pipe|socket|device), .* Save what comes from there"):
        texts(kind(path, on_error="skip"))


def test_an_archive_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(CorpusUnavailableError, match="is a pipe"):
        list(members(tmp_path / "a.tar", lambda name: True))


def test_a_link_to_nothing_is_no_missing_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CorpusUnavailableError, match=r"b\.txt"):
        texts(Text(tmp_path))


# --- folders


def test_links_are_followed_and_each_folder_and_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "poems" / "tang").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "poems" / "tang" / "a.txt").write_text("a")
    (tmp_path / "elsewhere" / "b.txt").write_text("b")
    (tmp_path / "poems" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "poems" / "a b.txt").symlink_to(tmp_path / "elsewhere" / "b.txt")
    (tmp_path / "poems" / "A.txt").symlink_to(tmp_path / "poems" / "tang" / "a.txt")
    (tmp_path / "poems" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "poems" / "first").symlink_to(tmp_path / "poems" / "tang")
    (tmp_path / "poems" / "tang" / "circle").symlink_to(tmp_path / "poems")
    (tmp_path / "poems" / "itself").symlink_to(tmp_path / "poems" / "itself")
    for path in (tmp_path / "poems", tmp_path / "poems" / "**" / "*.txt"):
        found = list(Text(path).documents())
        assert sorted(document.text for document in found) == ["a", "b"]
        assert "tang/a.txt" in [document.id for document in found]


def test_links_that_double_the_ways_are_no_endless_walk(tmp_path: Path) -> None:
    """40 folders, each with two links to the next: 2**40 ways."""
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
    for number in range(39):
        for name in "ab":
            (tmp_path / f"{number}" / name).symlink_to(tmp_path / f"{number + 1}")
    (tmp_path / "39" / "end.txt").write_text("end")
    for pattern in ("", "**/*.txt", "0/**/*.txt"):
        assert texts(Text(tmp_path / pattern)) == ["end"]


def test_folders_in_folders_have_a_limit_and_no_recursion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path.joinpath(*["d"] * 120)
    deep.mkdir(parents=True)
    (deep / "a.txt").write_text("a")
    with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_DEPTH"):
        texts(Text(tmp_path))
    monkeypatch.setenv("KERASGEN_MAX_DEPTH", "200")
    assert texts(Text(tmp_path)) == ["a"]


def test_a_glob_means_what_it_means_to_python(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "x/c.txt", "x/y/d.txt", ".hidden/e.txt", "x/.f.txt", "[g].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for pattern in ("*.txt", "**/*.txt", "*/*.txt", "**", "x/**", "**/y/*", "[ab].*", ".hidden/*", "**/.f*", "?/?/*"):
        matched = {path.relative_to(tmp_path).as_posix() for path in map(Path, _globbed(tmp_path, pattern))}
        assert set(texts(Text(tmp_path / pattern))) == matched, pattern


def _globbed(folder: Path, pattern: str) -> list[str]:
    import glob

    found = glob.glob(str(folder / pattern), recursive=True)  # noqa: PTH207 - the meaning that is compared with
    return [path for path in found if Path(path).is_file()]


# --- lines and documents


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_ends_a_line(tmp_path: Path, end: bytes) -> None:
    """A lone carriage return is how old Macs ended a line."""
    (tmp_path / "a.txt").write_bytes(end.join([b"spring", b"", b"night", b"rain"]) + end)
    assert texts(Text(tmp_path, split="line")) == ["spring", "night", "rain"]
    assert texts(Text(tmp_path, split="paragraph")) == ["spring", "night\nrain"]
    assert texts(Text(tmp_path)) == ["spring\n\nnight\nrain\n"]
    (tmp_path / "a.jsonl").write_bytes(end.join([b'{"text": "a"}', b'{"text": "b"}']))
    assert texts(Jsonl(tmp_path)) == ["a", "b"]
    (tmp_path / "a.csv").write_bytes(end.join([b"id,text", b'1,"a"', b'2,"b\rc"', b"3,d"]))
    assert texts(Csv(tmp_path)) == ["a", "b\rc", "d"]


def test_a_line_end_cut_by_a_piece_of_the_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 65_535 + b"\r\n" + b"y" * 10 + b"\r")
    assert [len(text) for text in texts(Text(tmp_path, split="line"))] == [65_535, 10]
    (tmp_path / "a.txt").write_bytes(b"x\r\ny\rz\xff\n")
    with pytest.raises(CorpusFormatError, match="line 3, byte 6"):
        texts(Text(tmp_path, split="line"))


@pytest.mark.parametrize("corpus", ["Text(path, split='line')", "Text(path)", "Jsonl(path)", "Csv(path)"])
@pytest.mark.parametrize("start", [b"", b'"', b'{"text": "a"}\n"'])
def test_a_line_without_end_takes_bounded_memory(tmp_path: Path, corpus: str, start: bytes) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.write(start + b"spring " * 20_000)  # by its beginning it is a text
        file.truncate(3 << 30)
    program = f"""
        path = sys.argv[1]
        try:
            list({corpus}.documents())
        except CorpusError as error:
            print(error)
    """
    assert "KERASGEN_MAX_LINE_BYTES" in within(400, program, str(path))


def test_a_row_that_never_closes_its_quote_takes_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASGEN_MAX_DOCUMENT_BYTES", "1M")
    (tmp_path / "a.csv").write_bytes(b'text\n"' + b"spring\n" * 200_000)
    with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_DOCUMENT_BYTES"):
        texts(Csv(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"spring\n" * 200_000)
    for split in ("file", "paragraph"):
        with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_DOCUMENT_BYTES"):
            texts(Text(tmp_path, split=split))  # type: ignore[arg-type]
    tally = CorpusTally()
    assert list(Text(tmp_path, on_error="skip").documents(tally)) == []
    assert tally.to_dict()["dropped"] == {"damaged file": 1}
    monkeypatch.setenv("KERASGEN_MAX_DOCUMENT_BYTES", "10MB")
    assert len(texts(Text(tmp_path))[0]) == 1_400_000


@pytest.mark.parametrize(
    "line", ["[" * 200_000, '{"a":' * 200_000, '{"text": "a", "n": ' + "9" * 5000 + "}", '{"text": "a"', "\0" * 50]
)
def test_no_json_ends_in_an_error_of_pythons(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "good"}}\n{line}\n')
    with pytest.raises(CorpusFormatError, match="line 2"):
        texts(Jsonl(tmp_path))
    assert texts(Jsonl(tmp_path, on_error="skip")) == ["good"]


# --- csv


def test_a_long_field_changes_nothing_for_other_readers_of_csv(tmp_path: Path) -> None:
    """The limit of Python's `csv` belongs to the whole process: other threads see it meanwhile."""
    long = 'x"' * 200_000
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "n"], ["short", "1"], [long, "2"], ["after", "3"]])
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(csv.field_size_limit())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for document in Csv(tmp_path).documents():
            seen.add(csv.field_size_limit())
            assert document.text in ("short", long, "after")
    finally:
        stop.set()
        watcher.join()
    assert seen == {131_072}


def test_long_rows_are_read_by_the_rules_of_short_ones(tmp_path: Path) -> None:
    """What Python's reader makes of a row when its limit is out of the way, in a process of its own."""
    draw = random.Random(3)
    pad = "z" * 140_000
    contents = []
    for _ in range(150):
        fields = ["".join(draw.choice('ab,"\r\n') for _ in range(draw.randrange(6))) for _ in range(3)]
        written = io.StringIO()
        csv.writer(written).writerow([*fields, pad])
        contents.append(written.getvalue())
        contents.append("".join(draw.choice('ab,"') for _ in range(8)) + "," + pad + "\n")  # rarely sound
    program = """
        import csv, io, json, sys
        csv.field_size_limit(10**9)
        def read(text):
            try:
                return next(csv.reader(io.StringIO(text, newline=""), strict=True))
            except (csv.Error, StopIteration) as error:
                return None
        print(json.dumps([read(text) for text in json.load(sys.stdin)]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=json.dumps(contents), capture_output=True, text=True, check=True,
    )  # fmt: skip
    from kerasgen.corpora import csv_rows

    for text, expected in zip(contents, json.loads(run.stdout), strict=True):
        try:
            found = csv_rows.parse(io.StringIO(text, newline=""), ",", too_large=AssertionError)
        except csv.Error:
            found = None
        assert found == expected, text[:20]


# --- compression


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_bomb_is_noticed_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """1.5 GB of zeros, or of lines, in some kilobytes."""
    path = tmp_path / f"a.txt{suffix}"
    piece = COMPRESSORS[suffix](b"spring night rain\n" * (1 << 18))
    path.write_bytes(piece * (1 + (1536 << 20) // (18 << 18)))
    program = """
        for make in (lambda path: Text(path, split="line"), Text, Jsonl):
            try:
                for _ in make(sys.argv[1]).documents():
                    pass
            except CorpusError as error:
                print(error)
    """
    said = within(400, program, str(path)).splitlines()
    assert len(said) == 3
    assert all("KERASGEN_MAX_EXPANSION" in line for line in said)


def test_the_limits_of_compression_are_raised_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"spring\n" * 60_000))
    monkeypatch.setenv("KERASGEN_MAX_EXPANSION_FLOOR_BYTES", "1k")
    with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_EXPANSION if"):
        texts(Text(tmp_path))
    monkeypatch.setenv("KERASGEN_MAX_EXPANSION", "2000")
    assert len(texts(Text(tmp_path))[0]) == 420_000
    monkeypatch.setenv("KERASGEN_MAX_DECOMPRESSED_BYTES", "300k")
    with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_DECOMPRESSED_BYTES"):
        list(Text(tmp_path, on_error="raise", split="line").documents())


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_flipped_bit_gives_the_same_texts_or_an_error_before_the_first(tmp_path: Path, suffix: str) -> None:
    """Also in the second of two streams, and also for who reads one document alone."""
    lines = [f"line {number} {random.Random(number).random()}" for number in range(200)]
    half = "\n".join(lines[:100]).encode() + b"\n"
    data = bytearray(COMPRESSORS[suffix](half) + COMPRESSORS[suffix]("\n".join(lines[100:]).encode()))
    path = tmp_path / f"a.txt{suffix}"
    draw = random.Random(0)
    refused = 0
    for place in [*range(12), *draw.sample(range(len(data)), 150), *range(len(data) - 12, len(data))]:
        data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        os.utime(path, ns=(place, place))
        try:
            first = next(iter(Text(path, split="line").documents()))
            assert first.text == lines[0]
            assert texts(Text(path, split="line")) == lines
        except CorpusFormatError:
            refused += 1
        data = bytearray(COMPRESSORS[suffix](half) + COMPRESSORS[suffix]("\n".join(lines[100:]).encode()))
    assert refused > 150


# --- archives

POEMS = {f"poems/{number}.json": random.Random(number).randbytes(900) for number in range(12)}


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in POEMS.items():
                zipped.writestr(name, content)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in POEMS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return COMPRESSORS[kind](file.getvalue())


@pytest.mark.parametrize("kind", ["zip", *COMPRESSORS])
def test_a_flipped_bit_of_an_archive_gives_the_same_files_or_an_error(tmp_path: Path, kind: str) -> None:
    whole = archive(kind)
    path = tmp_path / "a"
    draw = random.Random(1)
    places = [*range(30), *draw.sample(range(len(whole)), 150), *range(len(whole) - 60, len(whole))]
    if kind == "zip":
        places += range(whole.index(b"PK\x01\x02"), len(whole), 3)
    refused = 0
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            assert dict(members(path, lambda name: name.endswith(".json"))) == POEMS, place
        except CorpusFormatError:
            refused += 1
    assert refused > 150
    for keep in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(CorpusFormatError):
            list(members(path, lambda name: True))


def tar_of(size: int, kind: bytes = tarfile.REGTYPE, pax: dict[str, str] | None = None) -> bytes:
    member = tarfile.TarInfo("poems/0.json")
    member.size, member.type = size, kind
    head = b"" if pax is None else member.create_pax_global_header(pax).replace(b"g", b"x", 1)
    return head + member.tobuf(tarfile.GNU_FORMAT) + b"x" * 2048


@pytest.mark.parametrize(
    "content",
    [
        tar_of(1 << 60),
        tar_of(-5),
        tar_of(1 << 60, tarfile.GNUTYPE_LONGNAME),
        tar_of(1 << 33, tarfile.XHDTYPE),
        tar_of(1 << 60, tarfile.XGLTYPE),
        tar_of(1 << 60, tarfile.GNUTYPE_SPARSE),
    ],
    ids=["member", "negative", "long name", "pax", "global pax", "sparse"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_member_of_2_to_the_60_bytes_takes_no_memory(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a.tar{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    program = """
        try:
            print(len(list(members(sys.argv[1], lambda name: True))))
        except CorpusError as error:
            print(error)
    """
    assert "KERASGEN_MAX_DOCUMENT_BYTES" in (said := within(200, program, str(path))) or "can't be read" in said


def test_a_zip_that_lies_of_its_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    monkeypatch.setenv("KERASGEN_MAX_DOCUMENT_BYTES", "4M")
    monkeypatch.setenv("KERASGEN_MAX_EXPANSION_FLOOR_BYTES", "10M")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.json", b"\0" * (5 << 20))
    with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_DOCUMENT_BYTES"):
        list(members(path, lambda name: True))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for number in range(6):
            zipped.writestr(f"{number}.json", b"\0" * (3 << 20))
    with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_EXPANSION"):
        list(members(path, lambda name: True))


def test_how_many_members_an_archive_has_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASGEN_MAX_MEMBERS", "10")
    for kind in ("zip", ".gz"):
        (tmp_path / "a").write_bytes(archive(kind))
        with pytest.raises(CorpusFormatError, match="KERASGEN_MAX_MEMBERS"):
            list(members(tmp_path / "a", lambda name: False))


def test_a_limit_that_is_no_number_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    for text in ("", "many", "-1", "0", "1.5", "9" * 5000):
        monkeypatch.setenv("KERASGEN_MAX_LINE_BYTES", text)
        with pytest.raises(ValueError, match="KERASGEN_MAX_LINE_BYTES must be a whole number"):
            texts(Text(tmp_path))
