"""`kerasgen serve`: a model over HTTP as OpenAI's API describes it, or an exported page for browsers."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen.cli.arguments import add_backend, add_weights
from kerasgen.errors import ArgumentError
from kerasgen.serving import ServerSettings, serve

NAME = "serve"
HELP = "serve a saved pipeline, a model or an artefact over HTTP as OpenAI's API does, or show an exported page"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What the command takes.

    Args:
        source: a saved pipeline's directory, a model, an exported artefact or an exported page.
        host: the address to listen at.
        port: 0 takes a free one.
        api_key_file: a file that holds the API key which clients send; such a key is in no list of processes.
        model_name: that clients call the model by.
        chat_template: as `kerasgen chat` takes it.
        batch_size: texts that are written at the same time.
        queue_size: texts that wait beyond these.
        max_new_tokens: that one text may get.
        max_body_bytes: of a request.
        allowed_origin: origins of web pages whose scripts may call the server.
        allowed_host: names that the server answers to.
        shutdown_seconds: how long running texts may go on at the end.
        backend: that Keras runs on.
        weights: what kernels and the token table are held in.
    """

    source: str
    host: str = ServerSettings.host
    port: int = ServerSettings.port
    api_key_file: str | None = None
    model_name: str | None = None
    chat_template: str | None = None
    batch_size: int = ServerSettings.batch_size
    queue_size: int = ServerSettings.queue_size
    max_new_tokens: int | None = None
    max_body_bytes: int = ServerSettings.max_body_bytes
    allowed_origin: tuple[str, ...] = ()
    allowed_host: tuple[str, ...] = ()
    shutdown_seconds: int = ServerSettings.shutdown_seconds
    backend: str | None = None
    weights: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    defaults = ServeOptions(source="")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a saved pipeline's directory, a model (smollm2, a directory, a GGUF file), an exported artefact, or a "
        "folder that the exporter `web` wrote",
    )
    parser.add_argument("--host", default=defaults.host, help="the address to listen at; 0.0.0.0 for all of them")
    parser.add_argument("--port", type=int, default=defaults.port, help="TCP port; 0 takes a free one")
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="a file that holds the key which clients must send (default: KERASGEN_API_KEY, else none)",
    )
    parser.add_argument("--model-name", metavar="NAME", help="what clients call the model (default: its directory)")
    parser.add_argument(
        "--chat-template",
        metavar="NAME",
        help="chatml, llama3, gemma, alpaca or a template's file (default: the model's own)",
    )
    for name, what in (
        ("batch_size", "texts that are written at the same time"),
        ("queue_size", "texts that may wait beyond these"),
        ("max_body_bytes", "bytes of a request at most"),
        ("shutdown_seconds", "how long running texts may go on once the server is told to end"),
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name), help=what)
    parser.add_argument(
        "--max-new-tokens", type=int, help="tokens that one text may get (default: as many as the model has room for)"
    )
    parser.add_argument(
        "--allowed-origin",
        action="append",
        metavar="ORIGIN",
        help="a web page's origin whose scripts may call the server, such as https://example.org; may be repeated",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="a name that the server answers to; may be repeated (default: on loopback this machine's own, else any)",
    )
    add_backend(parser)
    add_weights(parser)


def run(chosen: argparse.Namespace) -> int:
    """Serve until the process is told to end."""
    values = {name: getattr(chosen, name) for name in ServeOptions.__dataclass_fields__}
    for name in ("allowed_origin", "allowed_host"):
        values[name] = tuple(values[name] or ())
    serve_with(ServeOptions(**values))
    return 0


def serve_with(options: ServeOptions) -> None:
    """Serve what the options say."""
    settings = ServerSettings(
        host=options.host,
        port=options.port,
        api_key=_api_key(options.api_key_file),
        model_name=options.model_name,
        batch_size=options.batch_size,
        queue_size=options.queue_size,
        max_new_tokens=options.max_new_tokens,
        max_body_bytes=options.max_body_bytes,
        allowed_origins=options.allowed_origin,
        allowed_hosts=options.allowed_host,
        shutdown_seconds=options.shutdown_seconds,
    )
    weights: Any = options.weights
    serve(
        options.source,
        settings=settings,
        backend=options.backend,
        weights=weights,
        chat_template=options.chat_template,
    )


def _api_key(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("KERASGEN_API_KEY") or None
    try:
        return Path(file).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise ArgumentError(f"The API key can't be read from {file!r}: {cause}.") from cause
