"""Whatever is sent to a server is answered by what is wrong with it, and the next request is answered as ever."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from listening import Listening, listening
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models.saving import save_preset
from kerasgen.serving import ServerSettings
from kerasgen.serving.server import application_of

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

VALUES: list[Any] = [
    None, True, -1, 0, 10**30, 1.5, -0.5, "", "x", "\x00\x1b[2J", "\ud800", [], [None], [[]], [1, "a"], {}, {"a": {}},
]  # fmt: skip
FIELDS = (
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "seed", "stop", "stream",
    "stream_options", "logprobs", "echo", "best_of", "suffix", "frequency_penalty", "presence_penalty",
    "repetition_penalty", "logit_bias", "response_format", "constraint", "valid_utf8", "user", "unheard_of",
)  # fmt: skip
CHAT_FIELDS = ("messages", "tools", "tool_choice", "max_completion_tokens", "top_logprobs", "chat_template_kwargs")
BODIES = {
    "nothing": b"",
    "no JSON": b'{"prompt": ',
    "a list": b"[1]",
    "a number": b"7",
    "deep": b'{"prompt": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep objects": b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "twice": b'{"prompt": "a", "prompt": "b", "max_tokens": 1}',
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "digits": b'{"prompt": "a", "seed": ' + b"9" * 6_000 + b"}",
}


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1, max_sequence_length=64), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def server(preset: Path) -> Iterator[Listening]:
    pipe = kg.Pipeline(model=preset, sampler="greedy", chat_template="alpaca")
    with listening(application_of(pipe, ServerSettings(batch_size=4, max_body_bytes=100_000))) as server:
        yield server


def post(server: Listening, path: str, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    told = answer.status, answer.read()
    connection.close()
    return told


def well(server: Listening) -> None:
    status, content = post(server, "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 2}).encode())
    assert status == 200
    assert json.loads(content)["choices"]


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request_is_refused(server: Listening, name: str) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        status, content = post(server, path, BODIES[name])
        assert status == 400 or (name == "twice" and status == 200 and path == "/v1/completions"), (status, content)
        if status != 200:
            assert json.loads(content)["error"]["message"]
    well(server)


def test_a_value_of_any_kind_in_any_field_is_taken_or_refused_and_never_a_failure(server: Listening) -> None:
    failed = []
    for field in FIELDS:
        for value in VALUES:
            body = {"prompt": "a", "max_tokens": 1, field: value}
            status, content = post(server, "/v1/completions", json.dumps(body).encode())
            if status not in (200, 400, 404):
                failed.append((field, value, status, content[:200]))
    talk = [{"role": "user", "content": "a"}]
    for field in CHAT_FIELDS:
        for value in [*VALUES, [{"role": 3, "content": {}}], [{"content": "a"}], [{"role": "user", "content": [3]}]]:
            body = {"messages": talk, "max_tokens": 1, field: value}
            status, content = post(server, "/v1/chat/completions", json.dumps(body).encode())
            if status not in (200, 400, 404):
                failed.append((field, value, status, content[:200]))
    assert not failed
    well(server)


def test_who_says_less_than_was_announced_or_goes_away_holds_nobody_up(server: Listening) -> None:
    slow = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    slow.sendall(b"Content-Length: 50\r\n\r\n{")
    gone = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    body = json.dumps({"prompt": "a", "max_tokens": 50, "stream": True}).encode()
    gone.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    gone.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert gone.recv(20).startswith(b"HTTP/1.1 200")
    gone.close()
    garbage = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    garbage.sendall(b"\x16\x03\x01\x02\x00\x01" * 10 + b"\r\n\r\n")
    well(server)
    slow.close()
    garbage.close()
    well(server)


def test_a_server_is_not_well_before_its_first_text_is_written(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kerasgen.serving.jax_slots import JaxSlots

    written, go = JaxSlots.admit, threading.Event()

    def admit(self: Any, texts: Any) -> Any:
        assert go.wait(60)
        return written(self, texts)

    monkeypatch.setattr(JaxSlots, "admit", admit)
    pipe = kg.Pipeline(model=preset, sampler="greedy")
    with listening(application_of(pipe, ServerSettings(batch_size=4))) as server:

        def health() -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            told = answer.status, json.loads(answer.read())
            connection.close()
            return told

        assert health() == (503, {"status": "warming up"})
        go.set()
        end = time.monotonic() + 60
        while health()[0] != 200 and time.monotonic() < end:
            time.sleep(0.02)
        assert health() == (200, {"status": "ok"})
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/metrics")
        counted = connection.getresponse().read().decode()
        connection.close()
        assert not re.search(r"^kerasgen_generated_tokens_total [1-9]", counted, re.M), "nobody asked for that text"
        well(server)


def test_a_pipeline_serves_itself(preset: Path) -> None:
    script = f"import kerasgen as kg; kg.Pipeline(model={str(preset)!r}, sampler='greedy').serve(port=0)"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ) as process:
        try:
            assert process.stdout is not None
            port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())[0])
            well(Listening(port, None, None))  # type: ignore[arg-type]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)
