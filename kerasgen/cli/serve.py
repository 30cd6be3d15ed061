"""`kerasgen serve`: a model over HTTP as OpenAI's API describes it, or an exported page for browsers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgen.cli.arguments import Assignments, Backend, Template, Weights, assigned, once, option, typed
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.serving import ServerSettings, serve

# Lists have flags that are given several times, and a key is in no list of processes.
_WITHOUT = ("api_key", "allowed_origins", "allowed_hosts")
_FLAGS = (
    "host",
    "port",
    "model_name",
    "batch_size",
    "queue_size",
    "max_new_tokens",
    "max_body_bytes",
    "shutdown_seconds",
)


def _number(name: str, description: str, default: str = "") -> Any:
    shown = default or str(getattr(ServerSettings, name))
    return option(f"--{name.replace('_', '-')}", metavar="N", help=f"{description} (default: {shown})")


def run(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="a saved pipeline's directory, a model (smollm2, a directory, a GGUF file), an exported artefact, or "
            "a folder that the exporter `web` wrote",
        ),
    ],
    host: Annotated[
        str | None,
        option(
            "--host",
            metavar="ADDRESS",
            help=f"the address to listen at; 0.0.0.0 for all of them (default: {ServerSettings.host})",
        ),
    ] = None,
    port: Annotated[int | None, _number("port", "TCP port; 0 takes a free one")] = None,
    api_key_file: Annotated[
        str | None,
        option(
            "--api-key-file",
            metavar="FILE",
            help="a file that holds the key which clients must send (default: KERASGEN_API_KEY, else none)",
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        option("--model-name", metavar="NAME", help="what clients call the model (default: its directory)"),
    ] = None,
    chat_template: Template = None,
    batch_size: Annotated[int | None, _number("batch_size", "texts that are written at the same time")] = None,
    queue_size: Annotated[int | None, _number("queue_size", "texts that may wait beyond these")] = None,
    max_new_tokens: Annotated[
        int | None, _number("max_new_tokens", "tokens that one text may get", "as many as the model has room for")
    ] = None,
    max_body_bytes: Annotated[int | None, _number("max_body_bytes", "bytes of a request at most")] = None,
    shutdown_seconds: Annotated[
        int | None,
        _number("shutdown_seconds", "how long running texts may go on once the server is told to end"),
    ] = None,
    allowed_origins: Annotated[
        list[str] | None,
        option(
            "--allowed-origin",
            metavar="ORIGIN",
            help="a web page's origin whose scripts may call the server, such as https://example.org; may be repeated "
            "(default: none)",
        ),
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        option(
            "--allowed-host",
            metavar="NAME",
            help="a name that the server answers to; may be repeated (default: on loopback this machine's own, else "
            "any)",
        ),
    ] = None,
    assignments: Assignments = None,
    as_json: Annotated[
        bool, option("--json", help="write where the server listens as one JSON object on standard output")
    ] = False,
    backend: Backend = None,
    weights: Weights = None,
) -> int:
    """Serve until the process is told to end."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(ServerSettings) if field.name not in _WITHOUT}
    flags = {name: context.params[name] for name in _FLAGS if context.params[name] is not None}
    settings = ServerSettings(
        api_key=_api_key(api_key_file),
        allowed_origins=tuple(allowed_origins or ()),
        allowed_hosts=tuple(allowed_hosts or ()),
        **once(flags, typed(assigned(assignments), kinds, call="serve")),
    )
    listening = _tell_as_json if as_json else None
    serve(
        source,
        settings=settings,
        backend=backend,
        weights=weights,
        chat_template=chat_template,
        on_listening=listening,
    )
    return 0


def _tell_as_json(url: str, port: int) -> None:
    show_json({"url": url, "port": port})


def _api_key(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("KERASGEN_API_KEY") or None
    try:
        return Path(file).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise ArgumentError(f"The API key can't be read from {file!r}: {cause}.") from cause
