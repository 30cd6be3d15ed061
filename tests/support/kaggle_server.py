"""A server on loopback that answers what Kaggle's own client asks for models: uploads, versions, downloads.

It is small and none of the client's. `kagglehub` finds it as its environment `LOCALHOST`, whose port is set here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

USER, KEY = "user", "key"


@dataclass
class KaggleServer:
    """The state of the server: models, and the versions of each variation as files by their paths."""

    port: int = 0
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refused: str | None = None
    """A method that is answered by 403."""

    def answer(self, method: str, asked: dict[str, Any]) -> tuple[int, Any]:
        model = f"{asked.get('ownerSlug')}/{asked.get('modelSlug') or asked.get('slug')}"
        body = asked.get("body") or {}
        framework = str(asked.get("framework") or body.get("framework") or "").rpartition("_")[2].lower()
        variation = f"{model}/{framework}/{asked.get('instanceSlug') or body.get('instanceSlug')}"
        if method == self.refused:
            return 403, {"code": 403, "message": "Permission denied."}
        if method == "GetModel":
            return (200, {"ref": model}) if model in self.models else (404, {"code": 404, "message": "Not found"})
        if method == "CreateModel":
            self.models[model] = asked
            return 200, {"id": 1, "ref": model}
        if method == "StartBlobUpload":
            token = f"blob-{len(self.blobs)}"
            self.blobs[token] = (asked["name"], b"")
            return 200, {"token": token, "createUrl": f"http://127.0.0.1:{self.port}/blobs/{token}"}
        if method == "CreateModelInstance" and variation in self.versions:
            return 200, {"error": "It is there already.", "errorCode": 409}
        if method in ("CreateModelInstance", "CreateModelInstanceVersion"):
            self.versions.setdefault(variation, []).append(dict(self._files(body)))
            return 200, {"id": len(self.versions[variation]), "ref": variation}
        if variation not in self.versions:
            return 404, {"code": 404, "message": "Not found"}
        if method == "GetModelInstance":
            return 200, {"slug": variation, "versionNumber": len(self.versions[variation])}
        files = self.versions[variation][int(asked["versionNumber"]) - 1]
        if method == "ListModelInstanceVersionFiles":
            return 200, {"files": [{"name": name, "size": len(data)} for name, data in files.items()]}
        if method == "DownloadModelInstanceVersion":
            found = files.get(asked.get("path", ""))
            return (404, {"code": 404, "message": "Not found"}) if found is None else (200, found)
        return 400, {"code": 400, "message": f"What is {method}?"}

    def _files(self, folder: dict[str, Any], place: str = "") -> Iterator[tuple[str, bytes]]:
        for file in folder.get("files") or ():
            name, data = self.blobs[file["token"]]
            yield f"{place}{name}", data
        for inner in folder.get("directories") or ():
            yield from self._files(inner, f"{place}{inner['name']}/")


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, home: Any) -> Iterator[KaggleServer]:
    """Let Kaggle's client find the server, as a user whose key it takes."""
    state = KaggleServer()
    wanted = f"Basic {base64.b64encode(f'{USER}:{KEY}'.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            method = urlsplit(self.path).path.rpartition("/")[2]
            state.asked.append(method)
            if self.headers.get("Authorization") != wanted:
                self._send(401, {"code": 401, "message": "Unauthenticated"})
            else:
                self._send(*state.answer(method, json.loads(content or b"{}")))

        def do_PUT(self) -> None:
            token = self.path.rpartition("/")[2]
            state.blobs[token] = (state.blobs[token][0], self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            self._send(200, {})

        def _send(self, status: int, answer: Any) -> None:
            data = answer if isinstance(answer, bytes) else json.dumps(answer, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/octet-stream" if data is answer else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *ignored: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        from kagglesdk import kaggle_env

        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, f"http://127.0.0.1:{state.port}")
        for name, value in (
            ("KAGGLE_API_ENVIRONMENT", "LOCALHOST"),
            ("KAGGLE_USERNAME", USER),
            ("KAGGLE_KEY", KEY),
            ("KAGGLEHUB_CACHE", str(home)),
            ("KAGGLEHUB_VERBOSITY", "error"),
            ("KAGGLE_CONFIG_DIR", str(home)),
            ("HOME", str(home)),
        ):
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
