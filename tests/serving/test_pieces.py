"""An answer in pieces is the whole answer: text, tokens and places, with stops, copies, echo and forms."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from listening import Listening, listening
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models.saving import save_preset
from kerasgen.serving import ServerSettings
from kerasgen.serving.server import application_of

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]  # compiling takes most of it


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> kg.Pipeline:
    model = tiny_gpt2(num_layers=1, max_sequence_length=256)
    return kg.Pipeline(model=save_preset(model, tmp_path_factory.mktemp("models") / "tiny"), sampler="greedy")


@pytest.fixture(scope="module")
def server(pipe: kg.Pipeline) -> Iterator[Listening]:
    with listening(application_of(pipe, ServerSettings(model_name="tiny", batch_size=8, queue_size=80))) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Listening) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def choices(answer: Any) -> list[dict[str, Any]]:
    return [choice.model_dump() for choice in answer.choices]


def joined(pieces: Any) -> list[dict[str, Any]]:
    """The texts of a stream, put together."""
    texts: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        for choice in choices(piece):
            text = texts.setdefault(choice["index"], {"text": "", "finish_reason": None, "logprobs": None})
            text["text"] += choice["text"]
            text["finish_reason"] = choice["finish_reason"] or text["finish_reason"]
            if choice["logprobs"] is not None:
                held = text["logprobs"] or {}
                text["logprobs"] = {name: held.get(name, []) + (of or []) for name, of in choice["logprobs"].items()}
    return [texts[index] for index in sorted(texts)]


def same(client: openai.OpenAI, **asked: Any) -> list[dict[str, Any]]:
    """The whole answer, which the stream must be."""
    asked = {"model": "tiny", "max_tokens": 24, "seed": 5, "temperature": 1.0} | asked
    whole = choices(client.completions.create(**asked))
    streamed = joined(client.completions.create(**asked, stream=True))
    assert [each["text"] for each in streamed] == [each["text"] for each in whole]
    assert [each["finish_reason"] for each in streamed] == [each["finish_reason"] for each in whole]
    for one, other in zip(whole, streamed, strict=True):
        if one["logprobs"] is not None:
            for name in ("tokens", "text_offset"):
                assert other["logprobs"][name] == one["logprobs"][name]
            assert other["logprobs"]["token_logprobs"] == pytest.approx(one["logprobs"]["token_logprobs"], abs=1e-4)
    return whole


def check_places(choice: dict[str, Any]) -> None:
    """Each token that is whole characters stands where its offset says, or is cut by the end."""
    told, text = choice["logprobs"], choice["text"]
    assert told["text_offset"] == sorted(told["text_offset"])
    if "\ufffd" in text:  # shown with the token after the bytes that are no character
        return
    for token, at in zip(told["tokens"], told["text_offset"], strict=True):
        if not token.startswith("bytes:"):
            assert text.startswith(token, at) or token.startswith(text[at:])


def test_copies_with_echo_and_log_probabilities(client: openai.OpenAI, pipe: kg.Pipeline) -> None:
    prompts = ["the sea", "春 and"]
    for settings in ({}, {"echo": True}, {"echo": True, "max_tokens": 0}, {"extra_body": {"valid_utf8": False}}):
        found = same(client, prompt=prompts, n=3, logprobs=2, **settings)
        assert len(found) == 6
        for number, choice in enumerate(found):
            check_places(choice)
            count = len(pipe.tokenizer.encode(prompts[number // 3]))
            if settings.get("echo"):
                assert choice["text"].startswith(prompts[number // 3])
                assert len(choice["logprobs"]["tokens"]) >= count
                assert choice["logprobs"]["token_logprobs"][1:count] == pytest.approx(
                    pipe.score(prompts[number // 3]).token_log_probabilities[1:], abs=1e-3
                )
            assert len(choice["logprobs"]["tokens"]) <= 24 + count
    assert len({choice["text"] for choice in same(client, prompt="the", n=4)}) > 1


def test_a_stop_wherever_it_lies_across_tokens(client: openai.OpenAI, pipe: kg.Pipeline) -> None:
    text = pipe.generate("the", max_new_tokens=24, return_prompt=False)
    for at, length in itertools.product((1, 4, 9), (1, 2, 5)):
        stop = text[at : at + length]
        (choice,) = same(client, prompt="the", temperature=0, stop=[stop, text[:9] + "never"], logprobs=1)
        assert choice["text"] == text[: text.index(stop)]
        assert choice["finish_reason"] == "stop"
        check_places(choice)
    (choice,) = same(client, prompt="the", temperature=0, stop=[text[-1] + "never"], logprobs=0)
    assert choice["text"] == text
    (choice,) = same(client, prompt="the", temperature=0, stop=[text[0]], logprobs=0)
    assert (choice["text"], len(choice["logprobs"]["tokens"])) == ("", 1)


def test_no_piece_cuts_a_character(server: Listening, client: openai.OpenAI, pipe: kg.Pipeline) -> None:
    """The tokens of Chinese characters are bytes here; each event is valid UTF-8 and holds whole characters."""
    pytest.importorskip("outlines_core")
    form = {"name": "regex", "pattern": "[春花江月夜]{6}", "whole_text": False}
    asked = {"model": "tiny", "prompt": "春", "max_tokens": 24, "stream": True, "seed": 2, "constraint": form}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(asked), {"Content-Type": "application/json"})
    events = connection.getresponse().read().split(b"\n\n")
    connection.close()
    assert events[-2:] == [b"data: [DONE]", b""]
    pieces = [json.loads(event.removeprefix(b"data: "))["choices"][0]["text"] for event in events[:-2]]
    assert len("".join(pieces)) == 6
    assert set("".join(pieces)) <= set("春花江月夜")
    assert "\ufffd" not in "".join(pieces)
    same(client, prompt="春", extra_body={"constraint": form}, logprobs=1)


def test_a_schema_holds_in_a_stream(client: openai.OpenAI) -> None:
    pytest.importorskip("outlines_core")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "詩"]}}}
    schema |= {"required": ["a", "b"], "additionalProperties": False}
    shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for extra in ({}, {"n": 3}):
        found = same(client, prompt="the", max_tokens=60, extra_body={"response_format": shape}, logprobs=1, **extra)
        for choice in found:
            told = json.loads(choice["text"])
            assert isinstance(told["a"], bool)
            assert told["b"] in ("x", "詩")
            assert choice["finish_reason"] == "stop"


def until(holds: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_while_waiting_frees_the_queue(
    pipe: kg.Pipeline, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    app = application_of(pipe, ServerSettings(model_name="tiny", batch_size=1, queue_size=1))
    scheduler = app.state.scheduler
    step, admit = scheduler.decoder.step, scheduler.decoder.admit
    turn = threading.Event()
    read: list[tuple[int, ...]] = []
    monkeypatch.setattr(scheduler.decoder, "step", lambda: (turn.wait(0.05), step())[1])
    monkeypatch.setattr(
        scheduler.decoder, "admit", lambda texts: (read.extend(text.prompt for text in texts), admit(texts))[1]
    )
    asked = {"model": "tiny", "prompt": "the", "max_tokens": 200, "temperature": 0}
    with listening(app) as server, server.client() as client:
        running = client.completions.create(**asked, stream=True)
        next(iter(running))
        waiting = http.client.HTTPConnection("127.0.0.1", server.port)
        body = json.dumps(asked | {"prompt": "gone before its turn", "stream": stream})
        waiting.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        until(lambda: len(scheduler._waiting) == 1)
        with pytest.raises(openai.RateLimitError):
            client.completions.create(**asked)
        waiting.close()
        until(lambda: not scheduler._waiting)
        assert len(scheduler._live) == 1, "the text that runs goes on"
        turn.set()
        assert client.completions.create(**asked | {"prompt": "sea", "max_tokens": 2}).usage.completion_tokens == 2
        running.close()
    gone = pipe.tokenizer.encode("gone before its turn")
    assert not [prompt for prompt in read if list(prompt[-len(gone) :]) == gone], "nothing was read for who went away"
