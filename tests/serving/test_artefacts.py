"""Exported artefacts are served one text at a time, and give the texts of their runtimes; so does the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from listening import listening
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.models.saving import save_preset
from kerasgen.serving import ServerSettings
from kerasgen.serving.server import application_of

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

PROMPT = "the sea"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory) -> kg.Pipeline:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return kg.Pipeline(model=save_preset(tiny_gpt2(num_layers=1), folder), sampler="greedy")


def exported(pipe: kg.Pipeline, path: Path, exporter: Any) -> Path:
    pipe.export(path, exporter=exporter)
    return path


@pytest.mark.tensorflow
def test_a_tflite_file_streams_with_log_probabilities(pipe, tmp_path) -> None:
    pytest.importorskip("ai_edge_litert")
    path = exported(pipe, tmp_path / "tiny.tflite", "tflite:cache_length=64,beams=0")
    runtime = kg.load_artefact(path)
    wanted = runtime.generate(PROMPT, max_new_tokens=12, return_prompt=False)
    asked = {"model": "tiny.tflite", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    with listening(application_of(path, ServerSettings())) as server, server.client() as client:
        pieces = list(client.completions.create(**asked, stream=True))
        assert "".join(piece.choices[0].text for piece in pieces) == wanted
        drawn = client.completions.create(model="tiny.tflite", prompt=PROMPT, max_tokens=12, seed=3, top_p=0.9)
        settings = {"max_new_tokens": 12, "sampler": "top_p:p=0.9", "seed": 3}
        assert drawn.choices[0].text == runtime.generate(PROMPT, return_prompt=False, **settings)
        (read,) = client.completions.create(**asked | {"max_tokens": 0}, echo=True, logprobs=1).choices
        score = pipe.score(PROMPT)
        np.testing.assert_allclose(read.logprobs.token_logprobs, score.token_log_probabilities, atol=1e-3)
        with pytest.raises(openai.BadRequestError, match="no chat template"):
            client.chat.completions.create(model="tiny.tflite", messages=[{"role": "user", "content": "x"}])


def test_a_gguf_file_is_served_by_llama_cpp(pipe, tmp_path) -> None:
    pytest.importorskip("xllamacpp")
    path = exported(pipe, tmp_path / "tiny.gguf", "gguf")
    wanted = kg.load_artefact(path).generate(PROMPT, max_new_tokens=12, return_prompt=False)
    with listening(application_of(path, ServerSettings(model_name="tiny"))) as server, server.client() as client:
        answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, temperature=0)
        assert answer.choices[0].text == wanted
        drawn = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, seed=2, temperature=1, n=2)
        assert drawn.choices[0].text != drawn.choices[1].text
        stop = wanted[3:5]
        stopped = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, temperature=0, stop=stop)
        assert stopped.choices[0].text == wanted[: wanted.index(stop)]
        with pytest.raises(openai.BadRequestError, match="log-probabilities"):
            client.completions.create(model="tiny", prompt=PROMPT, max_tokens=2, logprobs=1)


def test_llama_cpps_own_server_answers_the_same_client(pipe, tmp_path) -> None:
    """As the page on serving shows it, for what is beyond one machine."""
    xllamacpp = pytest.importorskip("xllamacpp")
    path = exported(pipe, tmp_path / "tiny.gguf", "gguf")
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.port, settings.n_parallel, settings.n_gpu_layers = str(path), 0, 2, 0
    settings.verbosity, settings.warmup, settings.fit_params = 1, False, False
    server = xllamacpp.Server(settings)
    with openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="any", timeout=60) as client:
        answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, temperature=0)
    assert answer.usage.completion_tokens == 8
    assert answer.choices[0].text


def test_the_command_serves_until_it_is_told_to_end(pipe, tmp_path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    saved = pipe.save(tmp_path / "poet")
    options = ["--port", "0", "--api-key-file", str(key), "--shutdown-seconds", "5"]
    command = [sys.executable, "-m", "kerasgen", "serve", str(saved), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ) as process:
        try:
            assert process.stdout is not None
            port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())[0])
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="secret", max_retries=5)
            answer = client.completions.create(model="poet", prompt=PROMPT, max_tokens=8, temperature=0)
            assert answer.choices[0].text == pipe.generate(PROMPT, max_new_tokens=8, return_prompt=False)
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


@pytest.mark.essential
@pytest.mark.parametrize("kind", ["saved_model", "litertlm", "transformers", "preset"])
@pytest.mark.tensorflow
def test_every_kind_that_is_exported_is_served(kind, pipe, tmp_path) -> None:
    """By the command, in a process of its own: the texts are those of Python."""
    needed = {"saved_model": "tensorflow", "litertlm": "litert_lm_builder", "transformers": "safetensors"}
    if kind in needed:
        pytest.importorskip(needed[kind], reason=f"the exporter {kind} needs it")
    names = {"litertlm": "tiny.litertlm", "saved_model": "tiny_saved_model"}
    path = exported(pipe, tmp_path / names.get(kind, "tiny"), kind)
    if kind in ("transformers", "preset"):
        wanted = pipe.generate(PROMPT, max_new_tokens=12, return_prompt=False)
    else:
        wanted = kg.load_artefact(path).generate(PROMPT, max_new_tokens=12, return_prompt=False)
    command = [sys.executable, "-m", "kerasgen", "serve", str(path), "--port", "0", "--model-name", "tiny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ) as process:
        try:
            assert process.stdout is not None
            port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())[0])
            with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", timeout=120) as client:
                asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
                assert client.completions.create(**asked).choices[0].text == wanted
                pieces = [piece.choices[0].text for piece in client.completions.create(**asked, stream=True)]
                assert "".join(pieces) == wanted
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["model", "tflite"])
def test_a_masked_model_is_refused_before_anybody_asks(kind, tmp_path, capsys) -> None:
    import json

    import encoders

    from kerasgen.cli import main

    source = Path(encoders.write("bert", tmp_path / "bert"))
    if kind == "tflite":
        pytest.importorskip("ai_edge_litert")
        source = exported(kg.Pipeline(model=source), tmp_path / "bert.tflite", "tflite")
    capsys.readouterr()
    assert main(["serve", str(source), "--port", "0", "--json"]) == 2
    out, err = capsys.readouterr()
    assert "can't be served: it writes no text from left to right" in json.loads(out)["error"]["message"]
    assert err.count("\n") == 1


class TextRuntime:
    """A runtime whose text has other ids than it chose, as LiteRT-LM's: none, fewer or more than were asked for."""

    def __init__(self, tokenizer, text: str) -> None:
        self.tokenizer, self.text = tokenizer, text

    def generate_ids(self, prompts, **settings) -> list[list[int]]:
        return [self.tokenizer.encode(self.text) for _ in prompts]


@pytest.mark.parametrize(
    ("text", "finish"), [("", "stop"), ("a", "stop"), ("a long and longer text of many tokens", "length")]
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_text_ends_where_its_runtime_ended_it(text, finish, stream, pipe) -> None:
    from kerasgen.samplers.sampling import Greedy
    from kerasgen.serving.application import application
    from kerasgen.serving.one_at_a_time import RuntimeSlot
    from kerasgen.serving.served_model import ServedModel

    decoder = RuntimeSlot(TextRuntime(pipe.tokenizer, text))
    model = ServedModel("tiny", pipe.tokenizer, 128, Greedy(), decoder, None)
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 4, "temperature": 0}
    with listening(application(model, ServerSettings())) as server, server.client() as client:
        for _ in range(2):
            if stream:
                choices = [piece.choices[0] for piece in client.completions.create(**asked, stream=True)]
            else:
                choices = list(client.completions.create(**asked).choices)
            assert "".join(choice.text for choice in choices) == text
            assert choices[-1].finish_reason == finish
        read = client.completions.create(**asked | {"max_tokens": 0}, echo=True)
        assert (read.choices[0].text, read.choices[0].finish_reason) == (PROMPT, "length")
