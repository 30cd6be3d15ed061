"""A hub on loopback that speaks what Hugging Face's client says to its own: repositories, commits, files, cards.

It is small, and it is none of the client's: what is pushed to it went through `huggingface_hub` itself. Faults can be
ordered: a status in the place of an answer, or a connection that is cut.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

LFS = (".h5", ".safetensors", ".gguf", ".tflite", ".litertlm")
LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "other", "llama3")


@dataclass
class Repository:
    """A repository: its branches are lists of commits, and a commit holds all files."""

    private: bool
    branches: dict[str, list[str]] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        number = len(self.commits)
        oid = hashlib.sha1(f"{number}{sorted(files)}{message}".encode()).hexdigest()
        self.commits[oid] = files
        self.messages[oid] = message
        self.branches.setdefault(branch, []).append(oid)
        return oid

    def at(self, revision: str) -> str | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return revision if revision in self.commits else None

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the main branch."""
        return self.commits[self.branches["main"][-1]]


@dataclass
class Fault:
    """What is answered in the place of the truth: a status, or `cut`; `times` often, after `after` requests."""

    method: str
    path: str
    answer: int | str
    times: int = 1_000
    after: int = 0


@dataclass
class HubServer:
    """The state of the hub."""

    port: int = 0
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    on_request: Callable[[str, str], None] | None = None
    ignored: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, home: Path, token: str | None = "hf_writer") -> dict[str, str]:
        """The variables by which another process talks to this hub."""
        known = {
            **os.environ,
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "no_proxy": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }
        known.pop("HF_TOKEN", None)
        return known | ({} if token is None else {"HF_TOKEN": token})

    def may(self, token: str | None, repository: str, *, write: bool) -> bool:
        user = self.users.get(token or "")
        found = self.repositories.get(repository)
        namespace = repository.partition("/")[0]
        owns = user is not None and namespace in (user["name"], *(org["name"] for org in user["orgs"]))
        if write:
            return owns and user is not None and user["auth"]["accessToken"]["role"] == "write"
        return found is not None and (owns or not found.private)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        path = unquote(split.path)
        self.hub.requests.append((method, path))
        if self.hub.on_request is not None:
            self.hub.on_request(method, path)
        for fault in self.hub.faults:
            if fault.method in (method, "*") and re.search(fault.path, path):
                if fault.after:
                    fault.after -= 1
                    continue
                if fault.times:
                    fault.times -= 1
                    self._fail(fault.answer)
                    return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._route(method, path, body, token)

    def _fail(self, answer: int | str) -> None:
        if answer == "cut":
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)
            self.connection.close()
            return
        self._send(int(answer), {"error": f"ordered: {answer}"})

    def _send(self, status: int, content: Any = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, code: str) -> None:
        self._send(404, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def _route(self, method: str, path: str, body: bytes, token: str | None) -> None:
        if path == "/api/whoami-v2":
            user = self.hub.users.get(token or "")
            self._send(200, user) if user else self._send(401, {"error": "Invalid credentials in Authorization header"})
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body))
        elif path == "/api/repos/create":
            self._create(json.loads(body), token)
        elif path == "/api/repos/delete":
            about = json.loads(body)
            name = f"{about['organization']}/{about['name']}" if about.get("organization") else about["name"]
            if not self.hub.may(token, name, write=True):
                self._send(403, {"error": "forbidden"})
                return
            self.hub.repositories.pop(name, None)
            self._send(200, {})
        elif path.startswith("/lfs/"):
            oid = path.removeprefix("/lfs/")
            if method == "PUT":
                assert hashlib.sha256(body).hexdigest() == oid
                self.hub.large[oid] = body
                self._send(200, {})
            else:
                self._file(self.hub.large[oid], oid)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._batch(found[1], json.loads(body), token)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
            self._model(method, found[1], found[2] or "", body, token)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
            self._resolve(*found.groups(), token)
        else:
            self._send(404, {"error": f"no such path: {path}"})

    def _validate(self, about: dict[str, Any]) -> None:
        fence = re.match(r"---\n(.*?)\n---\n", about["content"], re.DOTALL)
        errors = []
        try:
            settings = yaml.safe_load(fence[1]) if fence else {}
            if settings.get("license", "mit") not in LICENCES:
                errors.append({"message": f'"license" must be one of {LICENCES}'})
            for result in settings.get("model-index", ()):
                assert result["name"]
                assert all(each["task"]["type"] and each["dataset"]["type"] for each in result["results"])
                assert all(each["type"] for every in result["results"] for each in every["metrics"])
        except Exception as cause:
            errors.append({"message": repr(cause)})
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def _create(self, about: dict[str, Any], token: str | None) -> None:
        user = self.hub.users.get(token or "")
        if user is None:
            self._send(401, {"error": "Invalid username or password."})
            return
        name = f"{about.get('organization') or user['name']}/{about['name']}"
        if not self.hub.may(token, name, write=True):
            self._send(403, {"error": f"You don't have the rights to create a model under the namespace of {name}"})
        elif name in self.hub.repositories:
            self._send(409, {"url": f"{self.hub.address}/{name}", "error": "You already created this model repo"})
        else:
            private = about.get("private", about.get("visibility") == "private")
            made = Repository(bool(private))
            made.commit("main", {".gitattributes": b"*.h5 filter=lfs\n"}, "initial commit")
            self.hub.repositories[name] = made
            self._send(200, {"url": f"{self.hub.address}/{name}", "name": name, "id": "0"})

    def _batch(self, name: str, about: dict[str, Any], token: str | None) -> None:
        if not self.hub.may(token, name, write=True):
            self._send(403, {"error": "forbidden"})
            return
        objects = []
        for each in about["objects"]:
            known = each["oid"] in self.hub.large
            upload = {} if known else {"actions": {"upload": {"href": f"{self.hub.address}/lfs/{each['oid']}"}}}
            objects.append({"oid": each["oid"], "size": each["size"], **upload})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _model(self, method: str, name: str, rest: str, body: bytes, token: str | None) -> None:
        if not self.hub.may(token, name, write=False):
            found = name in self.hub.repositories
            status = 404 if found or self.hub.users.get(token or "") else 401
            self._send(status, {}, X_Error_Code="RepoNotFound")
            return
        repository = self.hub.repositories[name]
        kind, _, tail = rest.lstrip("/").partition("/")
        writes = kind in ("preupload", "commit", "branch") or tail == "write"
        if writes and not self.hub.may(token, name, write=True):
            self._send(403, {"error": "Forbidden: you need to be authenticated with a token that may write."})
        elif kind in ("", "revision"):
            self._info(name, repository, tail or "main")
        elif kind == "auth-check":
            self._send(200, {})
        elif kind == "tree":
            self._tree(repository, tail.partition("/")[0])
        elif kind == "preupload":
            self._preupload(repository, tail, json.loads(body))
        elif kind == "commit":
            self._commit(name, repository, tail, body)
        elif kind == "branch":
            self._branch(method, repository, tail)
        elif kind == "refs":
            names = [{"name": each, "ref": each, "targetCommit": repository.at(each)} for each in repository.branches]
            self._send(200, {"branches": names, "converts": [], "tags": []})
        else:
            self._send(404, {"error": rest})

    def _info(self, name: str, repository: Repository, revision: str) -> None:
        commit = repository.at(revision)
        if commit is None:
            self._missing("RevisionNotFound")
            return
        siblings = [{"rfilename": each} for each in repository.commits[commit]]
        about = {"id": name, "modelId": name, "sha": commit, "private": repository.private, "tags": []}
        self._send(200, {**about, "siblings": siblings})

    def _tree(self, repository: Repository, revision: str) -> None:
        commit = repository.at(revision)
        if commit is None:
            self._missing("RevisionNotFound")
            return
        entries = []
        for path, data in repository.commits[commit].items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
            if path.endswith(LFS):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self._send(200, entries)

    def _preupload(self, repository: Repository, revision: str, about: dict[str, Any]) -> None:
        commit = repository.at(revision)
        if commit is None:
            self._missing("RevisionNotFound")
            return
        here = repository.commits[commit]
        files = []
        for each in about["files"]:
            path = each["path"]
            mode = "lfs" if path.endswith(LFS) else "regular"
            data = here.get(path)
            oid = None if data is None else hashlib.sha256(data).hexdigest() if mode == "lfs" else _blob(data)
            ignored = any(re.search(pattern, path) for pattern in self.hub.ignored)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": ignored, "oid": oid})
        self._send(200, {"files": files})

    def _commit(self, name: str, repository: Repository, revision: str, body: bytes) -> None:
        head = repository.at(revision)
        if head is None:
            self._missing("RevisionNotFound")
            return
        files, message = dict(repository.commits[head]), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, head):
                    self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
                    return
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
        commit = repository.commit(revision, files, message)
        address = f"{self.hub.address}/{name}/commit/{commit}"
        self._send(200, {"success": True, "commitOid": commit, "commitUrl": address, "hookOutput": ""})

    def _branch(self, method: str, repository: Repository, name: str) -> None:
        if method == "DELETE":
            repository.branches.pop(name, None)
            self._send(200, {})
        elif name in repository.branches:
            self._send(409, {"error": "Reference already exists"})
        else:
            repository.branches[name] = [repository.branches["main"][-1]]
            self._send(200, {})

    def _resolve(self, name: str, revision: str, path: str, token: str | None) -> None:
        if not self.hub.may(token, name, write=False):
            self._send(401 if token is None else 404, {}, X_Error_Code="RepoNotFound")
            return
        repository = self.hub.repositories[name]
        commit = repository.at(revision)
        if commit is None:
            self._missing("RevisionNotFound")
            return
        data = repository.commits[commit].get(path)
        if data is None:
            self._send(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        elif path.endswith(LFS):
            oid = hashlib.sha256(data).hexdigest()
            linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": str(len(data))}
            self._file(data, oid, X_Repo_Commit=commit, **linked)
        else:
            self._file(data, _blob(data), X_Repo_Commit=commit)

    def _file(self, data: bytes, etag: str, **headers: str) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if found is None:
            self._send(200, data, ETag=f'"{etag}"', Accept_Ranges="bytes", **headers)
            return
        start, end = int(found[1]), int(found[2] or len(data) - 1)
        span = {"Content_Range": f"bytes {start}-{end}/{len(data)}"}
        self._send(206, data[start : end + 1], ETag=f'"{etag}"', **span, **headers)


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def user(name: str, *, role: str = "write", organizations: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the hub says of a person by their token."""
    orgs = [{"type": "org", "name": each} for each in organizations]
    return {"type": "user", "name": name, "orgs": orgs, "auth": {"accessToken": {"role": role}}}


@contextlib.contextmanager
def serving() -> Iterator[HubServer]:
    """Let a hub with three people listen until the context ends."""
    hub = HubServer(
        users={
            "hf_writer": user("name", organizations=("guild",)),
            "hf_reader": user("name", role="read"),
            "hf_other": user("other"),
        }
    )
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def use(hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = "hf_writer") -> None:
    """Let this process's client, which may have read its settings long ago, talk to the hub."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in hub.environment(home, token).items():
        if name.startswith("HF_") or name.lower() == "no_proxy":
            monkeypatch.setenv(name, value)
