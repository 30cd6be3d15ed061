"""`kerasgen chat` answers line by line, begins anew, and stops an answer without stopping itself."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path

import pytest
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.cli import main, sources
from kerasgen.cli.chat import _Conversation
from kerasgen.models.saving import save_preset

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    return save_preset(tiny_gpt2(num_layers=1), tmp_path_factory.mktemp("models") / "tiny")


def talk(text: str, monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return main(["chat", *arguments, "--sampler", "greedy", "--max-new-tokens", "8"])


@pytest.mark.filterwarnings("ignore:The chat template that was given")
def test_lines_are_answered_and_a_conversation_begins_anew(preset, monkeypatch, capsys) -> None:
    pipe = kg.Pipeline(model=preset, sampler="greedy", chat_template="chatml")

    def answer(*messages: str) -> str:
        roles = ("user", "assistant") if len(messages) % 2 else ("system", "user")
        said = [{"role": roles[n % 2], "content": text} for n, text in enumerate(messages)]
        return pipe.chat(said, max_new_tokens=8)

    first = answer("the sea")
    wanted = [first, answer("the sea", first, "and"), answer("Be brief.", "the sea"), answer("Be brief.", "/x")]
    lines = "the sea\nand\n/system Be brief.\nthe sea\n/reset\n//x\n/quit\nnever\n"
    assert talk(lines, monkeypatch, str(preset), "--chat-template", "chatml") == 0
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in wanted)


@pytest.mark.filterwarnings("ignore:The chat template that was given")
def test_json_is_a_message_a_line(preset, monkeypatch, capsys) -> None:
    pipe = kg.Pipeline(model=preset, sampler="greedy", chat_template="chatml")
    assert talk("the sea\n/reset\nthe sea\n", monkeypatch, str(preset), "--chat-template", "chatml", "--json") == 0
    answer = {"role": "assistant", "content": pipe.chat("the sea", max_new_tokens=8)}
    assert list(map(json.loads, capsys.readouterr().out.splitlines())) == [answer, answer]


def test_help_and_what_is_no_command_are_told(preset, monkeypatch, capsys) -> None:
    assert talk("/help\n/hlep\n", monkeypatch, str(preset), "--chat-template", "chatml") == 0
    told = capsys.readouterr()
    assert "/system TEXT" in told.out
    assert "/hlep is no command" in told.err


def test_a_model_without_a_template_is_refused(preset, monkeypatch, capsys) -> None:
    assert talk("Who?\n", monkeypatch, str(preset)) == 1
    assert "has no chat template" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:The chat template that was given")
def test_ctrl_c_stops_the_answer_and_not_the_program(preset, monkeypatch, capsys) -> None:
    writer = sources.open_writer(str(preset), backend=None, chat_template="chatml")
    calls: list[list[dict[str, str]]] = []
    stream = writer.chat_stream
    settings = {"sampler": "greedy", "max_new_tokens": 8, "valid_utf8": False}
    # How long this model's answers are depends on how its arithmetic is compiled.
    said = next(
        text
        for text in ("the sea", "a river", "Who?", "b", "cc", "once upon", "x y z")
        if len([*stream([{"role": "user", "content": text}], dict(settings))]) > 2
    )

    def interrupted(messages, settings):
        calls.append(messages)
        for count, piece in enumerate(stream(messages, settings)):
            yield piece
            if count == 0 and len(calls) == 1:
                signal.raise_signal(signal.SIGINT)

    # What other tests of this process ran may have left another handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(writer, "chat_stream", interrupted)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{said}\nand\n"))
    _Conversation(writer, settings, None).hold()
    told = capsys.readouterr()
    assert "[stopped]" in told.err
    first, second = told.out.splitlines()[0], calls[1]
    assert [message["content"] for message in second] == [said, first, "and"] or len(told.out.splitlines()) > 2
    assert len(calls) == 2
