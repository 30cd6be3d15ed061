"""A server answers OpenAI's client as the pipeline would, tells what is wrong, and lets go of who goes away."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from listening import Listening, listening
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models.saving import save_preset
from kerasgen.serving import ServerSettings
from kerasgen.serving.server import application_of

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]  # compiling takes most of it

TALK = [{"role": "user", "content": "the sea"}]


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1, max_sequence_length=256), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def pipe(preset) -> kg.Pipeline:
    return kg.Pipeline(model=preset, sampler="greedy", chat_template="alpaca")


@pytest.fixture(scope="module")
def server(pipe) -> Iterator[Listening]:
    settings = ServerSettings(model_name="tiny", batch_size=8, queue_size=80, max_body_bytes=50_000)
    with listening(application_of(pipe, settings)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def written(pipe: kg.Pipeline, prompts: Any, **settings: Any) -> Any:
    return pipe.generate(prompts, return_prompt=False, **settings)


def post(server: Listening, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any], Any]:
    """Send a body as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": "application/json"} | headers)
    answer = connection.getresponse()
    told = answer.status, json.loads(answer.read() or b"{}"), answer.headers
    connection.close()
    return told


def test_texts_are_the_pipelines(client, pipe) -> None:
    answer = client.completions.create(model="tiny", prompt=["the", "sea and"], max_tokens=40, temperature=0)
    assert [choice.text for choice in answer.choices] == written(pipe, ["the", "sea and"], max_new_tokens=40)
    settings = {"prompt": "a b", "max_tokens": 12, "n": 3, "seed": 7}
    drawn = client.completions.create(model="tiny", temperature=0.8, top_p=0.9, **settings)
    sampler = "top_p:p=0.9,temperature=0.8"
    (wanted,) = written(pipe, ["a b"], max_new_tokens=12, num_return_sequences=3, seed=7, sampler=sampler)
    assert [choice.text for choice in drawn.choices] == wanted
    assert drawn.usage.prompt_tokens == 1 + len(pipe.tokenizer.encode("a b"))
    assert drawn.usage.completion_tokens <= 36
    (name,) = [model.id for model in client.models.list()]
    assert name == "tiny"
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_stream_is_the_text_in_pieces(client, pipe) -> None:
    asked = {"model": "tiny", "prompt": "the", "max_tokens": 30, "temperature": 0, "stream": True}
    pieces = list(client.completions.create(**asked, stream_options={"include_usage": True}))
    assert "".join(c.text for piece in pieces for c in piece.choices) == written(pipe, "the", max_new_tokens=30)
    assert len(pieces) > 10
    assert [piece.choices[0].finish_reason for piece in pieces[-2:-1]] == ["length"]
    assert pieces[-1].usage.completion_tokens == 30


def test_a_stop_string_ends_a_text_before_it(client, pipe) -> None:
    whole = written(pipe, "the", max_new_tokens=30)
    stop = whole[7:10]
    answer = client.completions.create(model="tiny", prompt="the", max_tokens=30, temperature=0, stop=[stop])
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")
    assert answer.usage.completion_tokens < 30


def test_log_probabilities_are_the_models(client, pipe) -> None:
    """Of the prompt, which is only read, and of what is written; compared with the pipeline's forward pass."""
    text = "the sea and a hill"
    read = client.completions.create(model="tiny", prompt=text, max_tokens=0, echo=True, logprobs=3)
    told, score = read.choices[0].logprobs, pipe.score(text)
    assert read.choices[0].text == text == "".join(told.tokens)
    np.testing.assert_allclose(told.token_logprobs, score.token_log_probabilities, atol=1e-4)
    assert told.text_offset == [text.index(token, at) for token, at in zip(told.tokens, told.text_offset, strict=True)]
    assert all(max(top.values()) >= own for top, own in zip(told.top_logprobs, told.token_logprobs, strict=True))
    ids = pipe.tokenizer.encode(text)
    of_ids = client.completions.create(model="tiny", prompt=ids, max_tokens=4, echo=True, logprobs=3, temperature=0)
    both = of_ids.choices[0].logprobs
    np.testing.assert_allclose(both.token_logprobs[: len(ids)], told.token_logprobs, atol=1e-5)
    generated = pipe.generate(text, max_new_tokens=4, return_logprobs=True)
    np.testing.assert_allclose(both.token_logprobs[len(ids) :], generated.logprobs, atol=1e-4)


def test_a_chat_is_answered_by_the_template(client, pipe) -> None:
    wanted = pipe.chat(TALK, max_new_tokens=12)
    asked = {"model": "tiny", "messages": TALK, "max_completion_tokens": 12, "temperature": 0}
    (choice,) = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2).choices
    assert choice.message.content == wanted
    assert len(choice.logprobs.content) == 12
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    assert all(token.top_logprobs[0].logprob >= token.logprob for token in choice.logprobs.content)
    parts = [{"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "sea"}]}]
    (same,) = client.chat.completions.create(**asked | {"messages": parts}).choices
    assert same.message.content == wanted
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    with pytest.raises(openai.BadRequestError, match="text alone"):
        client.chat.completions.create(**asked | {"messages": [{"role": "user", "content": [picture]}]})
    pieces = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == wanted
    assert pieces[0].choices[0].delta.role == "assistant"


def test_texts_have_the_form_that_is_asked_for(client) -> None:
    pytest.importorskip("outlines_core")
    form = {"constraint": {"name": "regex", "pattern": "[ab]{3}-[0-9]", "whole_text": False}}
    answer = client.completions.create(model="tiny", prompt="x", max_tokens=12, temperature=0, extra_body=form)
    assert len(answer.choices[0].text) == 5
    assert answer.choices[0].finish_reason == "stop"
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    chat = client.chat.completions.create(model="tiny", messages=TALK, max_tokens=24, seed=1, response_format=shape)
    assert isinstance(json.loads(chat.choices[0].message.content)["a"], bool)


def test_what_is_wrong_is_said_as_the_client_expects(server, client) -> None:
    def fault(kind: type[openai.APIStatusError], words: str, **asked: Any) -> openai.APIStatusError:
        with pytest.raises(kind, match=words) as told:
            client.completions.create(**({"model": "tiny", "prompt": "the", "max_tokens": 4} | asked))
        return told.value

    assert fault(openai.BadRequestError, "256 positions", prompt="a b " * 400).code == "context_length_exceeded"
    assert fault(openai.NotFoundError, "not served here", model="other").code == "model_not_found"
    assert fault(openai.BadRequestError, "from 1 to 128", n=0).param == "n"
    fault(openai.BadRequestError, "repetition_penalty", frequency_penalty=1)
    fault(openai.BadRequestError, "Did you mean", extra_body={"temprature": 1})
    fault(openai.BadRequestError, "between 0 and 299", prompt=[300])
    with pytest.raises(openai.BadRequestError, match="json_schema"):
        client.chat.completions.create(model="tiny", messages=TALK, response_format={"type": "grammar"})
    for body, words in ((b"{", "JSON object"), (b"[1]", "JSON object"), (b"[" * 40_000, "JSON"), (b'{"n":NaN}', "NaN")):
        status, told, _ = post(server, "/v1/completions", body)
        assert (status, words in told["error"]["message"]) == (400, True)
    assert post(server, "/v1/completions", b"x" * 50_001)[0] == 413
    assert post(server, "/v1/completions", b"{}", **{"Content-Type": "text/plain"})[0] == 415
    assert post(server, "/v1/completions", b"{}", Host="example.org")[0] == 421
    assert post(server, "/v1/nothing", b"{}")[0] == 404


def test_many_clients_get_what_one_gets_alone(server, pipe) -> None:
    """Half of them greedy texts, half drawn ones; they come and go at different steps."""
    prompts = [f"{word} {n}" for n, word in enumerate(["the", "sea", "and a", "hill in the"] * 16)]
    asked = [
        {"prompt": prompt, "max_tokens": 3 + n % 29} | ({"temperature": 0} if n % 2 else {"seed": n, "top_p": 0.8})
        for n, prompt in enumerate(prompts)
    ]

    def alone(settings: dict[str, Any]) -> str:
        greedy = "temperature" in settings
        sampler = "greedy" if greedy else "top_p:p=0.8"
        seed, count = settings.get("seed", 0), settings["max_tokens"]
        return str(written(pipe, settings["prompt"], max_new_tokens=count, sampler=sampler, seed=seed))

    wanted = [alone(settings) for settings in asked]
    with server.client() as client, ThreadPoolExecutor(64) as together:
        answers = together.map(lambda one: client.completions.create(model="tiny", **one).choices[0].text, asked)
        assert list(answers) == wanted


def until(holds: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def metric(server: Listening, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_who_goes_away_frees_a_place_and_who_comes_too_late_is_told(pipe, monkeypatch) -> None:
    settings = ServerSettings(model_name="tiny", batch_size=1, queue_size=0, api_key="secret")
    app = application_of(pipe, settings)
    decoder = app.state.scheduler.decoder
    step = decoder.step
    turn = threading.Event()
    monkeypatch.setattr(decoder, "step", lambda: (turn.wait(0.05), step())[1])  # a text takes seconds
    asked = {"model": "tiny", "prompt": "the", "max_tokens": 100, "temperature": 0}
    with listening(app) as server:
        with pytest.raises(openai.AuthenticationError):
            server.client(api_key="wrong").models.list()
        client = server.client(api_key="secret")
        stream = client.completions.create(**asked, stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as late:
            client.completions.create(**asked)
        assert late.value.response.headers["retry-after"] == "1"
        stream.close()
        until(lambda: not decoder.engine or not any(decoder._texts))
        # Nor does one that waits for a whole text keep its place.
        waiting = http.client.HTTPConnection("127.0.0.1", server.port)
        headers = {"Content-Type": "application/json", "Authorization": "Bearer secret"}
        waiting.request("POST", "/v1/completions", json.dumps(asked), headers)
        until(lambda: any(decoder._texts))
        waiting.close()
        until(lambda: not any(decoder._texts))
        turn.set()
        assert client.completions.create(**asked).usage.completion_tokens <= 100


def test_a_server_that_ends_lets_texts_finish_or_ends_them(pipe, monkeypatch) -> None:
    for seconds, finishes in ((20, True), (0, False)):
        app = application_of(pipe, ServerSettings(model_name="tiny", batch_size=2))
        decoder = app.state.scheduler.decoder
        step = decoder.step
        pause = 0.02 if finishes else 0.1
        monkeypatch.setattr(decoder, "step", lambda step=step, pause=pause: (time.sleep(pause), step())[1])
        with listening(app, shutdown_seconds=seconds) as server:
            asked = {"model": "tiny", "prompt": "the", "max_tokens": 40, "temperature": 0}
            stream = iter(server.client().completions.create(**asked, stream=True))
            next(stream)
            server.server.should_exit = True
            if finishes:
                assert list(stream)[-1].choices[0].finish_reason == "length"
            else:
                with pytest.raises(openai.APIError, match="has ended"):
                    list(stream)
        assert not app.state.scheduler.is_alive


def test_metrics_are_prometheus_text(server, client) -> None:
    before = metric(server, "kerasgen_generated_tokens_total")
    client.completions.create(model="tiny", prompt="the", max_tokens=5, temperature=0)
    assert metric(server, "kerasgen_generated_tokens_total") == before + 5
    assert metric(server, "kerasgen_running_texts") == 0
    assert metric(server, "kerasgen_step_seconds_count") > 0
