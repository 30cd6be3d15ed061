"""`kerasgen chat`: a conversation in the terminal with a saved pipeline, a model or an artefact."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from kerasgen.cli import sources
from kerasgen.cli.arguments import add_backend, add_weights
from kerasgen.cli.generation_flags import add_setting
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.samplers import resolving
from kerasgen.terminal import show, visible

NAME = "chat"
HELP = "talk with a saved pipeline, a model or an exported artefact that has a chat template"

_SETTINGS: dict[str, dict[str, str]] = {
    "max_new_tokens": {"default": "1024, or as many as the model has room for"},
    "sampler": {
        "such_as": "such as top_p:p=0.9,temperature=0.8",
        "default": "the pipeline's; top_k for a model, greedy for an artefact",
    },
    "seed": {"default": "the pipeline's; 0 otherwise"},
    "stop": {},
    "engine": {"such_as": "such as keras or litert:quantize=int8"},
}
_COMMANDS = """\
/system TEXT  say how the assistant shall be, and begin anew; without a text, take that away
/reset        begin anew
/help         show this
/quit         leave, as the end of input (Ctrl-D) does
//TEXT        say a text that begins with /
Ctrl-C stops an answer; what came of it stays."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a saved pipeline's directory, a model (smollm2, a directory, a GGUF file), or an exported artefact",
    )
    parser.add_argument("--system", metavar="TEXT", help="how the assistant shall be (default: as its template says)")
    parser.add_argument(
        "--chat-template",
        metavar="NAME",
        help="chatml, llama3, gemma, alpaca or a template's file (default: the model's own)",
    )
    for name, options in _SETTINGS.items():
        add_setting(parser, name, **options)
    add_backend(parser)
    add_weights(parser)


def run(chosen: argparse.Namespace) -> int:
    """Read a line, write the answer, and so on to the end of input."""
    settings = {name: getattr(chosen, name) for name in _SETTINGS if getattr(chosen, name) is not None}
    if chosen.sampler is not None:
        resolving.resolve(chosen.sampler)  # before a model is loaded for it
    writer = sources.open_writer(
        chosen.source, backend=chosen.backend, weights=chosen.weights, chat_template=chosen.chat_template
    )
    writer.check_chat()
    system = None if chosen.system is None else sources.as_text(chosen.system)
    _Conversation(writer, settings, system).hold()
    return 0


class _Conversation:
    """What was said so far, and who answers.

    Args:
        writer: answers.
        settings: of each answer.
        system: how the assistant shall be, or None.
    """

    def __init__(
        self, writer: sources.PipelineWriter | sources.ArtefactWriter, settings: dict[str, Any], system: str | None
    ) -> None:
        self._writer, self._settings, self._system = writer, settings, system
        self._messages: list[dict[str, str]] = []
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()

    def hold(self) -> None:
        """Answer each line of standard input, to its end."""
        self._tell("Say something; /help shows what else there is, and Ctrl-D leaves.")
        for line in self._lines():
            command, _, rest = line.partition(" ")
            if line.startswith("//") or not line.startswith("/"):
                self._answer(line.removeprefix("/") if line.startswith("//") else line)
            elif command == "/system":
                self._system, self._messages = rest.strip() or None, []
                self._tell("The conversation begins anew.")
            elif command == "/reset":
                self._messages = []
                self._tell("The conversation begins anew.")
            elif command == "/help":
                show(_COMMANDS)
            elif command in ("/quit", "/exit", "/bye"):
                return
            else:
                show(f"{command} is no command.\n{_COMMANDS}", stream=sys.stderr)

    def _lines(self) -> Iterator[str]:
        """Yield the lines that say something, in a terminal with a prompt before each."""
        if self._is_terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (gives `input` a line to edit and what was written before)
        while True:
            try:
                line = input("> ") if self._is_terminal else sys.stdin.readline()
            except EOFError:
                show("")
                return
            except KeyboardInterrupt:  # takes back what was being written
                show("\nCtrl-D leaves.", stream=sys.stderr)
                continue
            if not line and not self._is_terminal:
                return
            if line.strip():
                yield line.rstrip("\r\n")

    def _answer(self, text: str) -> None:
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        self._messages.append({"role": "user", "content": text})
        said = ""
        try:
            for piece in self._writer.chat_stream([*system, *self._messages], dict(self._settings)):
                said += piece
                show(piece, end="")
        except KeyboardInterrupt:
            show(" [stopped]", end="", stream=sys.stderr)
        except KerasgenError as error:
            self._messages.pop()
            if not self._is_terminal:
                raise
            advice = " /reset begins anew." if isinstance(error, ArgumentError) and self._messages else ""
            print(f"kerasgen: {visible(' '.join(str(error).split()))}{advice}", file=sys.stderr)
            return
        show("")
        if said.strip():
            self._messages.append({"role": "assistant", "content": said})
        else:
            self._messages.pop()

    def _tell(self, text: str) -> None:
        if self._is_terminal:
            show(text, stream=sys.stderr)
