"""The routes of a server: OpenAI's, `/healthz` and `/metrics`, over what a scheduler writes. Imports starlette."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kerasgen.errors import ArgumentError
from kerasgen.serving import fields, metrics, requests, responses
from kerasgen.serving.fields import RequestError
from kerasgen.serving.requests import Asked
from kerasgen.serving.responses import Answer, TextSoFar
from kerasgen.serving.scheduler import BusyError, ClosedError, Scheduler, hand_over
from kerasgen.serving.served_model import ServedModel
from kerasgen.serving.settings import ServerSettings
from kerasgen.serving.texts import Event, Text

_LOG = logging.getLogger("kerasgen.serving")
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_RETRY_SECONDS = 1


def application(model: ServedModel, settings: ServerSettings) -> Starlette:
    """Return the server of a model; its scheduler starts and ends with it."""
    counted = metrics.Metrics()
    scheduler = Scheduler(model.decoder, model.tokenizer.end_token_ids, settings.queue_size, counted)
    server = _Server(model, settings, scheduler, counted)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def deliver(told: list[tuple[Text, list[Event]]]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(hand_over, told)

        scheduler.start(deliver, _first_text(model, settings) if settings.warm_up else None)
        yield
        await run_in_threadpool(scheduler.close)

    middleware = [
        Middleware(_Guard, settings=settings, metrics=counted),
    ]
    if settings.allowed_origins:
        cors = Middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
        middleware.insert(0, cors)
    routes = [
        Route("/healthz", server.health),
        Route("/metrics", server.metrics),
        Route("/v1/models", server.models),
        Route("/v1/models/{name:path}", server.model),
        Route("/v1/completions", partial(server.write, requests.completion), methods=["POST"]),
        Route("/v1/chat/completions", partial(server.write, requests.chat), methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={RequestError: _refused, HTTPException: _failed_http, Exception: _failed},
    )
    app.state.scheduler = scheduler
    return app


def _first_text(model: ServedModel, settings: ServerSettings) -> Text | None:
    """Return a text of two tokens, or None where the model has no room for it."""
    try:
        asked = requests.completion({"model": model.name, "prompt": ".", "max_tokens": 2}, model)
        return requests.texts_of(asked, model, settings, lambda _, __: None)[0]
    except (ArgumentError, RequestError) as error:
        _LOG.warning("The server begins without a first text: %s", error)
        return None


def error_response(message: str, status: int, *, field: str | None = None, code: str | None = None) -> JSONResponse:
    """Return an error as OpenAI's API writes it."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    headers = {"Retry-After": str(_RETRY_SECONDS)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"error": {"message": message, "type": kind, "param": field, "code": code}}
    return JSONResponse(body, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(str(error), error.status, field=error.field, code=error.code)


async def _failed_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.detail, error.status_code)


async def _failed(_: Request, error: Exception) -> Response:
    return error_response("The server failed at this request; its log says more.", 500)


def response_to(error: Exception) -> Response:
    """Return the answer to a request whose text could not be written."""
    if isinstance(error, RequestError):
        return error_response(str(error), error.status, field=error.field, code=error.code)
    if isinstance(error, BusyError):
        return error_response(f"{error} Try again.", 429, code="busy")
    if isinstance(error, ClosedError):
        return error_response(str(error), 503, code="closing")
    if isinstance(error, ArgumentError):
        return error_response(str(error), 400)
    return error_response(f"{type(error).__name__}: {error}", 500)


class _Guard:
    """Looks at each request before it is read: the host that it names, its key; and counts the answers.

    Args:
        app: what answers.
        settings: of the server.
        metrics: what is counted.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: metrics.Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.add(1, str(message["status"]))
            await send(message)

        refusal = self._refusal(Request(scope))
        await (self._app if refusal is None else refusal)(scope, receive, counting)

    def _refusal(self, request: Request) -> Response | None:
        settings = self._settings
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if settings.hosts and name not in settings.hosts:
            return error_response(f"This server doesn't answer to the name {name!r:.80}; see --allowed-host.", 421)
        if settings.api_key is None or request.url.path == "/healthz" or request.method == "OPTIONS":
            return None
        given = request.headers.get("authorization", "")
        wanted = f"Bearer {settings.api_key}"
        if hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
            return None
        return error_response("The server asks for its API key: Authorization: Bearer ….", 401, code="invalid_api_key")


class _Server:
    """Answers requests.

    Args:
        model: what is served.
        settings: of the server.
        scheduler: writes the texts.
        metrics: what is counted.
    """

    def __init__(
        self, model: ServedModel, settings: ServerSettings, scheduler: Scheduler, metrics: metrics.Metrics
    ) -> None:
        self._model, self._settings, self._scheduler, self._metrics = model, settings, scheduler, metrics
        self._began = int(time.time())

    async def health(self, _: Request) -> Response:
        """Say whether texts are written; while the first one is, which compiles, they are not yet."""
        if not self._scheduler.is_alive:
            return JSONResponse({"status": "ending"}, 503)
        if not self._scheduler.is_warm:
            return JSONResponse({"status": "warming up"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        """Say what was counted."""
        return PlainTextResponse(self._metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def models(self, _: Request) -> Response:
        """List the model."""
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        """Say what the model is."""
        name = request.path_params["name"]
        if name != self._model.name:
            return error_response(f"The model {name!r:.80} is not served here.", 404, code="model_not_found")
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        positions = self._model.max_sequence_length
        described = {"id": self._model.name, "object": "model", "created": self._began, "owned_by": "kerasgen"}
        return described | ({} if positions is None else {"max_model_len": positions})

    async def write(self, read: Callable[[Mapping[str, Any], ServedModel], Asked], request: Request) -> Response:
        """Answer a completion or a chat."""
        content = await self._body(request)
        events: asyncio.Queue[tuple[Text, Event]] = asyncio.Queue()

        def tell(text: Text, told: list[Event]) -> None:
            for event in told:
                events.put_nowait((text, event))

        def prepare() -> tuple[Asked, list[Text]]:
            asked = read(fields.parsed(content), self._model)
            return asked, requests.texts_of(asked, self._model, self._settings, tell)

        # Long prompts and new constraints take a while, in which others are answered.
        asked, texts = await run_in_threadpool(prepare)
        try:
            self._scheduler.submit(texts)
        except (BusyError, ClosedError) as error:
            return response_to(error)
        writing = _Writing(self, asked, texts, events)
        if asked.stream:
            return await writing.stream(request)
        return await writing.whole(request)

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # what a form of another web page can't send
            raise RequestError(f"The body must be application/json. Received: {kind!r:.80}.", status=415)
        content = bytearray()
        most = self._settings.max_body_bytes
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise RequestError(f"A body may have {most} bytes here. Received: {length}.", status=413)
        try:
            async for part in request.stream():
                content += part
                if len(content) > most:
                    raise RequestError(f"A body may have {most} bytes here, and this one has more.", status=413)
        except ClientDisconnect as cause:
            raise RequestError("The client went away before it had sent the body.", status=499) from cause
        return bytes(content)

    def abandon(self, texts: list[Text]) -> None:
        """Let texts end for which nobody waits."""
        self._metrics.abandoned.add(1)
        self._scheduler.cancel(texts)

    def answer(self, asked: Asked) -> Answer:
        """Return what writes an answer."""
        return Answer(asked, self._model.name, self._model.tokenizer)

    def told_of_prompt(self, asked: Asked, event: Event, number: int) -> list[dict[str, Any]] | None:
        """Return what is told of a prompt's tokens."""
        if event.prompt is None:
            return None
        return responses.of_prompt(requests.shown(asked, event.prompt, number), self._model.tokenizer)


class _Writing:
    """One request while its texts are written.

    Args:
        server: that answers.
        asked: the request.
        texts: its texts.
        events: what is told of them.
    """

    def __init__(
        self,
        server: _Server,
        asked: Asked,
        texts: list[Text],
        events: asyncio.Queue[tuple[Text, Event]],
    ) -> None:
        self._server, self._asked, self._texts, self._events = server, asked, texts, events
        self._answer = server.answer(asked)
        self._number = {text: n for n, text in enumerate(texts)}
        shown = [asked.prompts[n // asked.copies].text if asked.echo else "" for n in range(len(texts))]
        self._so_far = [TextSoFar(len(text)) for text in shown]
        self._shown = shown
        self._left = len(texts)

    async def _next(self) -> tuple[int, Event, list[dict[str, Any]]]:
        """Return the next event with the number of its text and the tokens whose text is known to be shown.

        Raises:
            Exception: the text could not be written.
        """
        text, event = await self._events.get()
        number = self._number[text]
        if event.error is not None:
            raise event.error
        so_far = self._so_far[number]
        prompt = self._server.told_of_prompt(self._asked, event, number)
        told = so_far.add(event, prompt or ())
        if event.finish is not None:
            so_far.finish = event.finish
            self._left -= 1
        return number, event, told

    async def whole(self, request: Request) -> Response:
        """Return the answer once all of it is written; if the client goes away, its texts end."""
        gone = asyncio.ensure_future(_gone(request))
        writing = asyncio.ensure_future(self._written())
        try:
            await asyncio.wait({gone, writing}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                self._server.abandon(self._texts)
                return Response(status_code=499)
            try:
                return JSONResponse(writing.result())
            except Exception as error:
                self._server.abandon(self._texts)
                return response_to(error)
        except asyncio.CancelledError:
            self._server.abandon(self._texts)
            raise
        finally:
            gone.cancel()
            writing.cancel()

    async def _written(self) -> dict[str, Any]:
        while self._left:
            await self._next()
        choices = []
        for number, so_far in enumerate(self._so_far):
            text = self._shown[number] + "".join(so_far.pieces)
            choices.append(self._answer.choice(number, text, so_far.tokens, so_far.finish))
        return self._answer.whole(choices, self._generated)

    @property
    def _generated(self) -> int:
        return sum(so_far.generated for so_far in self._so_far)

    async def stream(self, request: Request) -> Response:
        """Return an answer that sends each piece as it comes. What goes wrong before the first is a plain error."""
        gone = asyncio.ensure_future(_gone(request))
        coming = asyncio.ensure_future(self._next())
        try:
            await asyncio.wait({gone, coming}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():  # while its texts waited
                self._server.abandon(self._texts)
                return Response(status_code=499)
            first = coming.result()
        except asyncio.CancelledError:
            self._server.abandon(self._texts)
            raise
        except Exception as error:
            self._server.abandon(self._texts)
            return response_to(error)
        finally:
            gone.cancel()
            coming.cancel()
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._lines(first), media_type="text/event-stream", headers=headers)

    async def _lines(self, first: tuple[int, Event, list[dict[str, Any]]]) -> AsyncIterator[str]:
        begun: set[int] = set()
        told: Any = first
        try:
            while True:
                number, event, tokens = told
                text = event.piece
                if number not in begun:
                    text = self._shown[number] + text
                if text or event.is_last or number not in begun or (tokens and self._asked.logprobs is not None):
                    piece = self._answer.piece(number, text, tokens, event.finish, first=number not in begun)
                    begun.add(number)
                    yield _line(piece)
                if not self._left:
                    break
                told = await self._next()
            if self._asked.stream_usage:
                yield _line(self._answer.usage_piece(self._generated))
            yield "data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self._server.abandon(self._texts)
            raise
        except Exception as error:
            self._server.abandon(self._texts)
            response = response_to(error)
            yield f"data: {bytes(response.body).decode()}\n\n"


def _line(piece: dict[str, Any]) -> str:
    return f"data: {json.dumps(piece, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"


async def _gone(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
