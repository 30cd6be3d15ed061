"""Opens what is to be served, and listens until it is told to end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kerasgen import locations
from kerasgen.errors import ArgumentError, MissingDependencyError
from kerasgen.serving.settings import ServerSettings
from kerasgen.terminal import show

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

    from kerasgen.models.base import WeightsDtype
    from kerasgen.pipeline import Pipeline

_TOLD_SECONDS = 5  # in which those who wait for a text are told that it has ended

# The thread that writes waits so long for Python's lock while requests are read; by default 5 ms, which is a step.
_SWITCH_SECONDS = 0.0005


def serve(
    source: str | os.PathLike[str] | Pipeline,
    *,
    settings: ServerSettings | None = None,
    backend: str | None = None,
    weights: WeightsDtype | None = None,
    chat_template: str | None = None,
    on_listening: Callable[[str, int], None] | None = None,
    **changes: Any,
) -> None:
    """Serve a model over HTTP until the process is told to end (Ctrl-C, or SIGTERM).

    `/v1/completions` and `/v1/chat/completions` are OpenAI's; requests that are there at the same time share steps of
    the model, unless it is an artefact, whose texts are written one after another. A folder that `export` wrote with
    the exporter `web` is shown as it is, with the headers that its threads need. Needs the extra `serve`.

    Args:
        source: a saved pipeline's directory, a model, an exported artefact, an exported page, or a `Pipeline`.
        settings: of the server; those given by name come first.
        backend: that Keras runs on, for a pipeline or a model.
        weights: what kernels and the token table are held in, as `Pipeline` takes it.
        chat_template: as `Pipeline` takes it.
        on_listening: called with the address and the port as soon as the server listens; None says them on standard
            output.
        **changes: of the settings by name, such as `port=8080`.

    Raises:
        ArgumentError: a setting is wrong, or there is nothing that can be served.
        MissingDependencyError: starlette or uvicorn is not installed.
    """
    if settings is None:
        settings = ServerSettings(**changes)
    elif changes:
        import dataclasses

        settings = dataclasses.replace(settings, **changes)
    app = application_of(source, settings, backend=backend, weights=weights, chat_template=chat_template)
    run(app, settings, on_listening=on_listening)


def application_of(
    source: str | os.PathLike[str] | Pipeline,
    settings: ServerSettings,
    *,
    backend: str | None = None,
    weights: WeightsDtype | None = None,
    chat_template: str | None = None,
) -> Starlette:
    """Return what answers requests, an ASGI application that any server can run; the arguments are those of `serve`."""
    is_page = isinstance(source, (str, os.PathLike)) and locations.is_page(source)
    require_packages(f"; or python -m http.server --directory {source}, which shows the page too" if is_page else "")
    from kerasgen.serving import static_pages
    from kerasgen.serving.application import application
    from kerasgen.serving.served_model import open_model

    if isinstance(source, (str, os.PathLike)) and is_page:
        return static_pages.application(source, settings)
    model = open_model(source, settings, backend=backend, weights=weights, chat_template=chat_template)
    return application(model, settings)


def require_packages(or_else: str = "") -> None:
    """Raise unless starlette and uvicorn are installed.

    Args:
        or_else: what does without them, for the message.

    Raises:
        MissingDependencyError: one is not.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as cause:
        raise MissingDependencyError(
            f"Serving needs the package {cause.name}. Run: pip install 'kerasgen[serve]'{or_else}.",
            package=str(cause.name),
            extra="serve",
        ) from cause


def run(app: Starlette, settings: ServerSettings, *, on_listening: Callable[[str, int], None] | None = None) -> None:
    """Listen until the process is told to end.

    Args:
        app: answers requests.
        settings: of the server.
        on_listening: as of `serve`.

    Raises:
        ArgumentError: the port is taken, or the address is not this machine's.
    """
    import asyncio
    import socket
    import sys

    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(2048)  # who comes before uvicorn looks waits
    except OSError as cause:
        listening.close()
        raise ArgumentError(
            f"The server can't listen at {settings.host}:{settings.port}: {cause.strerror}. Choose another."
        ) from cause
    port = listening.getsockname()[1]
    shown = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
    if not settings.is_local and settings.api_key is None:
        show("Anyone who reaches this machine can use the server: it has no API key.")
    (_say if on_listening is None else on_listening)(f"http://{shown}:{port}", port)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with listening:
        asyncio.run(uvicorn_server(app, settings).serve([listening]))


def _say(url: str, port: int) -> None:
    show(f"Serving at {url} (Ctrl-C ends it).")


def uvicorn_server(app: Starlette, settings: ServerSettings) -> uvicorn.Server:
    """Return what listens for an application.

    Told to end, it takes no more requests and lets running texts finish; after `shutdown_seconds` they end where they
    are, and those who wait for them are told.
    """
    import asyncio

    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: Any = None) -> None:
            scheduler = getattr(app.state, "scheduler", None)
            if scheduler is not None:
                asyncio.get_running_loop().call_later(settings.shutdown_seconds, scheduler.close, 0.0)
            await super().shutdown(sockets)

    configuration = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_seconds + _TOLD_SECONDS,
        server_header=False,
    )
    return Server(configuration)
