"""An exported page is shown with the headers that its threads need, and nothing beside it."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening import Listening, listening

from kerasgen.errors import ArgumentError, MissingDependencyError, ModelFormatError
from kerasgen.serving import ServerSettings
from kerasgen.serving.server import application_of

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a server looks at of an exported page."""
    folder = tmp_path_factory.mktemp("pages") / "poet_web"
    (folder / "wasm").mkdir(parents=True)
    (folder / "kerasgen.json").write_text(json.dumps({"exporter": "web"}))
    (folder / "index.html").write_text("<title>poet</title>")
    (folder / "wasm" / "runtime.wasm").write_bytes(b"\0asm")
    (folder.parent / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def server(folder) -> Iterator[Listening]:
    with listening(application_of(folder, ServerSettings())) as server:
        yield server


def get(server: Listening, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    told = answer.status, answer.read(), answer.headers
    connection.close()
    return told


def test_a_page_is_isolated_so_that_its_runtime_may_have_threads(server) -> None:
    status, content, headers = get(server, "/")
    assert (status, content) == (200, b"<title>poet</title>")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    status, content, headers = get(server, "/wasm/runtime.wasm")
    assert (status, headers["Content-Type"]) == (200, "application/wasm")  # else it isn't compiled while it comes
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize("path", ["/../secret.txt", "/%2e%2e/secret.txt", "/wasm/../../secret.txt", "/nothing"])
def test_what_lies_beside_a_page_is_not_shown(server, path) -> None:
    status, content, _ = get(server, path)
    assert (status, b"secret" in content) == (404, False)


def test_a_page_answers_to_this_machines_names_alone(server) -> None:
    assert get(server, "/", Host="example.org")[0] == 400


@pytest.mark.parametrize("fault", ["missing", "cut", "no page"])
def test_a_page_that_was_copied_in_part_is_not_shown(tmp_path: Path, fault: str) -> None:
    sizes = {"index.html": 5, "model.tflite": 8}
    (tmp_path / "kerasgen.json").write_text(json.dumps({"exporter": "web", "files": sizes}))
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    application_of(tmp_path, ServerSettings())
    (tmp_path / "index.html").write_text("edited by its owner")
    application_of(tmp_path, ServerSettings())
    if fault == "cut":
        (tmp_path / "model.tflite").write_bytes(b"x")
    else:
        (tmp_path / ("index.html" if fault == "no page" else "model.tflite")).unlink()
    with pytest.raises(ModelFormatError, match=r"is not whole: . files are missing and . have another size, such as"):
        application_of(tmp_path, ServerSettings())


def test_a_page_takes_no_key(folder) -> None:
    with pytest.raises(ArgumentError, match="API key"):
        application_of(folder, ServerSettings(api_key="secret"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 70_000}, "at most 65535"),
        ({"batch_size": 0}, "at least 1"),
        ({"api_key": " "}, "not empty"),
        ({"prot": 8000}, "port"),
    ],
)
def test_settings_are_checked_when_they_are_made(settings, words) -> None:
    with pytest.raises(ArgumentError, match=words):
        ServerSettings(**settings)


def test_without_the_extra_a_page_s_other_server_is_named(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(MissingDependencyError, match=rf"or python -m http.server --directory {folder}, which"):
        application_of(folder, ServerSettings())
    with pytest.raises(MissingDependencyError) as caught:
        application_of(tmp_path, ServerSettings())
    assert "http.server" not in str(caught.value)
