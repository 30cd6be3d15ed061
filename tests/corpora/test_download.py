"""Downloads against a server on this machine that cuts, forgets and changes its mind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kerasgen.corpora.base import CorpusTally
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.corpora.download import fetch
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError
from kerasgen.files.digests import sha256_of

pytestmark = pytest.mark.one_backend

CONTENT = bytes(range(256)) * 1000


@dataclass
class Server:
    """What a server sends, and what it was asked.

    Args:
        content: the file.
        tag: its entity tag, or None.
        ranges: whether it knows ranges.
        sizes: whether it says the file's size; if not, it sends chunks.
        cuts: for each transfer to come, after how many bytes the connection breaks.
        asked: the Range header of each request, or None.
        sent: bytes of content sent.
    """

    content: bytes = CONTENT
    tag: str | None = '"one"'
    ranges: bool = True
    sizes: bool = True
    cuts: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    plan = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            plan.asked.append(wanted)
            if self.path != "/file":
                self.send_error(404)
                return
            start = 0
            if wanted and plan.ranges and self.headers.get("If-Range", plan.tag) == plan.tag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(plan.content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(plan.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = plan.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(plan.content) - 1}/{len(plan.content)}")
            if plan.tag:
                self.send_header("ETag", plan.tag)
            self.send_header(*(("Content-Length", str(len(body))) if plan.sizes else ("Transfer-Encoding", "chunked")))
            self.end_headers()
            cut = plan.cuts.pop(0) if plan.cuts else None
            body = body[:cut]
            plan.sent += len(body)
            if plan.sizes:
                self.wfile.write(body)
            else:
                self.wfile.write(
                    f"{len(body):x}\r\n".encode() + body + b"\r\n" + (b"0\r\n\r\n" if cut is None else b"")
                )
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    plan.url = f"http://127.0.0.1:{listener.server_address[1]}/file"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield plan
    listener.shutdown()
    listener.server_close()
    thread.join()


def test_a_download_arrives_whole_and_is_not_repeated(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "file.bin"
    assert fetch(server.url, path).read_bytes() == CONTENT
    assert fetch(server.url, path) == path
    assert server.asked == [None]
    assert not list(path.parent.glob("*.part*")), "nothing of the transfer is left"


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000]
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert server.sent == len(CONTENT), "no byte came twice"


def test_the_next_call_goes_on_where_the_last_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000]
    with pytest.raises(CorpusUnavailableError, match=r"broke off 2 times.*150000 of 256000.*Do this\."):
        fetch(server.url, tmp_path / "f", attempts=2, advice="Do this.")
    assert not (tmp_path / "f").exists()
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [100_000]
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert server.sent == 100_000 + len(CONTENT)


def test_a_cut_is_noticed_where_the_server_tells_no_size(server: Server, tmp_path: Path) -> None:
    server.sizes, server.cuts = False, [100_000]
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_halves_of_two_different_files_are_never_joined(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000]
    with pytest.raises(CorpusUnavailableError):
        fetch(server.url, tmp_path / "f", attempts=1)
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_tag_that_promises_the_bytes_only_a_known_digest_allows_going_on(
    server: Server, tmp_path: Path, tag: str | None
) -> None:
    server.tag, server.cuts = tag, [100_000, 100_000]
    assert fetch(server.url, tmp_path / "f", attempts=3).read_bytes() == CONTENT
    assert server.asked == [None, None, None]
    server.asked.clear()
    server.tag, server.cuts = None, [100_000]
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(server.url, tmp_path / "g", sha256=digest).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_part_that_was_complete_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """As after a process that was killed between the last byte and the check."""
    (tmp_path / "f.part").write_bytes(CONTENT)
    (tmp_path / "f.part.json").write_text(json.dumps({"url": server.url, "validator": server.tag}), encoding="utf-8")
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert server.sent == 0


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    (tmp_path / "f.part.json").write_text(json.dumps({"url": server.url, "validator": server.tag}), encoding="utf-8")
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT


def test_a_part_of_unknown_origin_is_not_trusted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"something else")
    assert fetch(server.url, tmp_path / "f").read_bytes() == CONTENT


def test_a_wrong_digest_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CorpusFormatError, match=f"{hashlib.sha256(CONTENT).hexdigest()}; expected {'0' * 64}"):
        fetch(server.url, tmp_path / "f", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_its_check_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise CorpusFormatError(f"{path.stat().st_size} bytes of something else")

    with pytest.raises(CorpusFormatError, match="256000 bytes"):
        fetch(server.url, tmp_path / "f", check=refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changed_in_the_cache_is_noticed(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url, tmp_path / "f")
    assert (tmp_path / "f.sha256").read_text(encoding="utf-8") == f"{sha256_of(path)}  f\n"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(CorpusFormatError, match="Delete it"):
        fetch(server.url, path)


def test_a_file_put_into_the_cache_by_hand_is_checked_once_and_recorded(server: Server, tmp_path: Path) -> None:
    checked: list[Path] = []
    (tmp_path / "f").write_bytes(b"mine")
    for _ in range(2):
        fetch(server.url, tmp_path / "f", check=checked.append)
    assert checked == [tmp_path / "f"]
    assert server.asked == []


def test_two_at_once_share_one_download(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    threads = [threading.Thread(target=fetch, args=(server.url, tmp_path / "f")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == [None]


@pytest.mark.parametrize("address", ["/elsewhere", "http://127.0.0.1:9/file"])
def test_an_address_that_cannot_be_reached_is_named_with_what_to_do(
    server: Server, tmp_path: Path, address: str
) -> None:
    url = server.url.replace("/file", address) if address.startswith("/") else address
    with pytest.raises(CorpusUnavailableError, match=rf"{url} can't be reached: .+ Do this\."):
        fetch(url, tmp_path / "f", advice="Do this.")


def test_the_bar_is_drawn_when_asked_for(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(server.url, tmp_path / "quiet")
    assert capsys.readouterr().err == ""
    fetch(server.url, tmp_path / "file.bin", progress=True)
    assert "file.bin" in (bar := capsys.readouterr().err)
    assert "100%" in bar


def test_the_corpus_without_a_path_says_which_address_failed_and_what_to_pass(tmp_path: Path) -> None:
    corpus = ChinesePoetry(url="http://127.0.0.1:9/poems.tar.gz", cache_dir=str(tmp_path))
    with pytest.raises(CorpusUnavailableError, match=r"127\.0\.0\.1:9/poems\.tar\.gz can't be reached.*path=…"):
        next(corpus.documents())


def test_the_corpus_refuses_a_download_that_is_not_the_pinned_revision(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CorpusFormatError, match="zip or tar"):
        next(ChinesePoetry(url=server.url, cache_dir=str(tmp_path)).documents())
    assert not list(tmp_path.glob("*.archive"))


def test_the_corpus_downloads_the_real_poems_over_a_cut_line_and_reads_them(
    server: Server, tmp_path: Path, shared_data: Path
) -> None:
    server.content = (shared_data / "chinese-poetry.tang.tar.xz").read_bytes()
    server.cuts = [1_000_000, 2_000_000]
    corpus = ChinesePoetry(url=server.url, cache_dir=str(tmp_path), dynasty="tang", form="lüshi")
    tally = CorpusTally()
    first = next(iter(corpus.documents(tally)))
    assert first.metadata["form"] == "lüshi"
    assert server.sent == len(server.content)
    assert next(iter(corpus.documents())) == first
    assert len(server.asked) == 3, "the second pass asked the server nothing"
