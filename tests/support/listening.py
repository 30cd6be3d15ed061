"""A server of kerasgen on a free port of loopback, in a thread of the tests' process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import uvicorn

from kerasgen.serving import ServerSettings
from kerasgen.serving.server import uvicorn_server


@dataclass(frozen=True)
class Listening:
    """A server that listens."""

    port: int
    app: Any
    server: uvicorn.Server

    def client(self, **settings: Any) -> openai.OpenAI:
        """A client of it, as people make one."""
        settings = {"api_key": "any", "max_retries": 0, "timeout": 60} | settings
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", **settings)


@contextlib.contextmanager
def listening(app: Any, **settings: Any) -> Iterator[Listening]:
    """Let an application listen until the context ends."""
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        at.listen()  # who comes before the thread waits
        server = uvicorn_server(app, ServerSettings(**settings))
        thread = threading.Thread(target=lambda: server.run([at]))
        thread.start()
        try:
            yield Listening(at.getsockname()[1], app, server)
        finally:
            server.should_exit = True
            thread.join()
