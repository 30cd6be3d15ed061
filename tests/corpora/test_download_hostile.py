"""Servers that are slow, endless, elsewhere, or that answer what they were not asked; on this machine, over sockets."""

from __future__ import annotations

import contextlib
import gzip
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kerasgen.corpora import https
from kerasgen.corpora.download import fetch
from kerasgen.errors import CorpusUnavailableError

pytestmark = pytest.mark.one_backend

CONTENT = bytes(range(256)) * 40
Answer = Callable[[dict[str, str], Callable[[bytes], None]], None]
"""Is called with the request's headers and a function that sends bytes."""


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """A function that starts a server of answers, the last for all further requests, and returns its address."""
    servers: list[socketserver.ThreadingTCPServer] = []

    def start(*answers: Answer) -> str:
        waiting = list(answers)

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.rfile.readline()
                headers = {}
                while line := self.rfile.readline().decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]

                def send(data: bytes) -> None:
                    self.wfile.write(data)
                    self.wfile.flush()

                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    answer(headers, send)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/file"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(status: str = "200 OK", body: bytes = CONTENT, **headers: Any) -> Answer:
    said = {"Content-Length": len(body), **{name.replace("_", "-"): value for name, value in headers.items()}}

    def answer(_: dict[str, str], send: Callable[[bytes], None]) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in said.items() if value is not None)]
        send("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)

    return answer


def refused(url: str, path: Path, **settings: Any) -> str:
    begin = time.monotonic()
    with pytest.raises(CorpusUnavailableError) as caught:
        fetch(url, path, **{"attempts": 2, "timeout_seconds": 0.4, **settings})
    assert time.monotonic() - begin < 15
    assert not path.exists()
    return str(caught.value)


def test_what_is_right_arrives(serve: Callable[..., str], tmp_path: Path) -> None:
    assert fetch(serve(reply()), tmp_path / "f").read_bytes() == CONTENT
    elsewhere = serve(reply())
    moved = serve(reply("302 Found", b"", Location=elsewhere))
    assert fetch(moved, tmp_path / "g").read_bytes() == CONTENT


@pytest.mark.parametrize("where", ["before the status", "in the headers", "in the body"])
def test_a_server_slower_than_slow_is_given_up(serve: Callable[..., str], tmp_path: Path, where: str) -> None:
    """A byte at a time, each within the timeout: it would take hours."""

    def dribble(_: dict[str, str], send: Callable[[bytes], None]) -> None:
        if where != "before the status":
            send(b"HTTP/1.1 200 OK\r\n")
        if where == "in the body":
            send(b"Content-Length: 10240\r\n\r\n")
        elif where == "in the headers":
            send(b"X-Slow: ")
        for byte in b"HTTP/1.1 200 OK" * 20:
            send(bytes([byte]))
            time.sleep(0.1)

    said = refused(serve(dribble), tmp_path / "f")
    assert "bytes came in" in said if where == "in the body" else "no answer in 0.4 s" in said


@pytest.mark.parametrize("coding", ["chunked", None])
def test_a_download_without_end_has_one(
    serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coding: str | None
) -> None:
    monkeypatch.setenv("KERASGEN_MAX_DOWNLOAD_BYTES", "1M")
    sent = 0

    def endless(_: dict[str, str], send: Callable[[bytes], None]) -> None:
        nonlocal sent
        send(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if coding else b"\r\n"))
        while True:
            send((b"10000\r\n" if coding else b"") + b"x" * 65_536 + (b"\r\n" if coding else b""))
            sent += 65_536

    said = refused(serve(endless), tmp_path / "f", sha256="0" * 64, timeout_seconds=5)
    assert "KERASGEN_MAX_DOWNLOAD_BYTES" in said
    assert sent < 100 << 20
    assert not (tmp_path / "f.part").exists()


def test_a_size_beyond_the_limit_or_the_disk_is_refused_before_a_byte(
    serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "KERASGEN_MAX_DOWNLOAD_BYTES" in refused(serve(reply(Content_Length=1 << 40)), tmp_path / "f")
    monkeypatch.setenv("KERASGEN_MAX_DOWNLOAD_BYTES", "900000T")
    assert "Make room" in refused(serve(reply(Content_Length=1 << 58)), tmp_path / "f")
    monkeypatch.setenv("KERASGEN_MAX_DOWNLOAD_BYTES", "10k")
    assert fetch(serve(reply()), tmp_path / "f").stat().st_size == len(CONTENT)


def test_a_download_has_a_time_in_all(
    serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASGEN_MAX_DOWNLOAD_SECONDS", "1")

    def steady(_: dict[str, str], send: Callable[[bytes], None]) -> None:
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            send(b"x" * 4096)
            time.sleep(0.05)

    assert "KERASGEN_MAX_DOWNLOAD_SECONDS" in refused(serve(steady), tmp_path / "f", timeout_seconds=5)


@pytest.mark.parametrize("length", ["12000", "0x10", "-5", "9" * 30, "ten", "10, 10"])
def test_a_length_that_is_none_or_another_is_no_file(serve: Callable[..., str], tmp_path: Path, length: str) -> None:
    refused(serve(reply(Content_Length=length)), tmp_path / "f")


def test_a_file_of_no_length_is_taken_only_where_a_cut_would_be_noticed(
    serve: Callable[..., str], tmp_path: Path
) -> None:
    url = serve(reply(Content_Length=None))
    assert "how long" in refused(url, tmp_path / "f")
    assert fetch(url, tmp_path / "f", check=lambda path: None).read_bytes() == CONTENT

    def cut_headers(_: dict[str, str], send: Callable[[bytes], None]) -> None:
        send(b"HTTP/1.1 200 OK\r\nContent-Le")

    assert "how long" in refused(serve(cut_headers), tmp_path / "g")


@pytest.mark.parametrize("status", ["206 Partial Content", "204 No Content", "203 Not Quite", "201 Created"])
def test_only_the_whole_file_is_the_answer_to_its_address(
    serve: Callable[..., str], tmp_path: Path, status: str
) -> None:
    answer = reply(status, CONTENT[:100], Content_Range=f"bytes 0-99/{len(CONTENT)}")
    assert f"status {status[:3]}" in refused(serve(answer), tmp_path / "f")


def test_a_coded_file_is_another_file(serve: Callable[..., str], tmp_path: Path) -> None:
    answer = reply(body=gzip.compress(CONTENT), Content_Encoding="gzip")
    assert "coded as 'gzip'" in refused(serve(answer), tmp_path / "f")


def begin(tmp_path: Path, url: str, tag: str = '"one"') -> Path:
    """Half of a file, as an earlier call left it."""
    (tmp_path / "f.part").write_bytes(b"\xff" * 5000)
    (tmp_path / "f.part.json").write_text(json.dumps({"url": url, "validator": tag}))
    return tmp_path / "f"


def test_a_half_is_never_completed_by_another_file(serve: Callable[..., str], tmp_path: Path) -> None:
    """A server that does not know If-Range sends the rest of a file whose tag is another."""
    rest = reply("206 Partial Content", CONTENT[5000:], Content_Range=f"bytes 5000-10239/{len(CONTENT)}", ETag='"two"')
    url = serve(rest, reply(ETag='"two"'))
    assert fetch(url, begin(tmp_path, url)).read_bytes() == CONTENT


def test_all_of_it_has_come_only_if_the_tag_says_so(serve: Callable[..., str], tmp_path: Path) -> None:
    full = reply("416 Range Not Satisfiable", b"", Content_Range="bytes */5000", ETag='"two"')
    url = serve(full, reply(ETag='"two"'))
    assert fetch(url, begin(tmp_path, url)).read_bytes() == CONTENT


@pytest.mark.parametrize("extent", ["bytes 0-5239/10240", "bytes 4999-10239/10240", "", "bytes 5000", "lines 5000-1/2"])
def test_another_range_than_asked_for_is_not_appended(serve: Callable[..., str], tmp_path: Path, extent: str) -> None:
    rest = reply("206 Partial Content", CONTENT[5000:], Content_Range=extent or None, ETag='"one"')
    path = begin(tmp_path, url := serve(rest))
    if extent == "bytes 5000":  # its beginning is right and its end unknown: the length tells
        assert fetch(url, path, check=lambda found: None).stat().st_size == len(CONTENT)
    else:
        refused(url, path)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/file", "file:///etc/hostname", "http://example.org/file"])
def test_no_redirection_leaves_https_or_this_machine(serve: Callable[..., str], tmp_path: Path, target: str) -> None:
    said = refused(serve(reply("302 Found", b"", Location=target)), tmp_path / "f")
    assert "redirect" in said or "Found" in said
    assert "http may be changed on its way" in refused("http://example.org/file", tmp_path / "f")
    assert "is not fetched" in refused("file:///etc/hostname", tmp_path / "f")


@pytest.mark.parametrize(
    ("origin", "target", "followed"),
    [
        ("https://a.org/x", "https://b.org/y", True),
        ("https://a.org/x", "http://a.org/y", False),
        ("https://a.org/x", "http://127.0.0.1/y", False),
        ("https://a.org/x", "ftp://a.org/y", False),
        ("http://127.0.0.1/x", "https://b.org/y", True),
        ("http://127.0.0.1/x", "http://[::1]/y", True),
        ("http://localhost/x", "http://localhost.example.org/y", False),
    ],
)
def test_where_a_redirection_may_lead(origin: str, target: str, followed: bool) -> None:
    """An https server can't be run here without a certificate: the rule is asked as urllib asks it."""
    import io
    import urllib.request

    ask = https._Redirects().redirect_request
    request = urllib.request.Request(origin)
    if followed:
        assert ask(request, io.BytesIO(), 302, "", {}, target) is not None
    else:
        with pytest.raises(OSError, match="not https"):
            ask(request, io.BytesIO(), 302, "", {}, target)


def test_a_redirection_in_a_circle_ends(serve: Callable[..., str], tmp_path: Path) -> None:
    def circle(headers: dict[str, str], send: Callable[[bytes], None]) -> None:
        send(f"HTTP/1.1 302 Found\r\nLocation: http://{headers['host']}/file\r\nContent-Length: 0\r\n\r\n".encode())

    assert "infinite loop" in refused(serve(circle), tmp_path / "f")
