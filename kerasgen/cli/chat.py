"""`kerasgen chat`: a conversation in the terminal with a saved pipeline, a model or an artefact."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from kerasgen.cli import sources
from kerasgen.cli.arguments import (
    Assignments,
    Backend,
    Engine,
    Sampler,
    Seed,
    Stop,
    Template,
    Weights,
    generation_settings,
    option,
    setting,
)
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.samplers import resolving
from kerasgen.terminal import show, visible

_SETTINGS = ("max_new_tokens", "sampler", "seed", "stop", "engine")
# What one answer has no use for.
_OF_TEXTS = ("return_logprobs", "progress", "num_return_sequences", "return_prompt", "batch_size", "allowed_special")
_COMMANDS = """\
/system TEXT  say how the assistant shall be, and begin anew; without a text, take that away
/reset        begin anew
/help         show this
/quit         leave, as the end of input (Ctrl-D) does
//TEXT        say a text that begins with /
Ctrl-C stops an answer; what came of it stays."""


def run(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="a saved pipeline's directory, a model (smollm2, a directory, a GGUF file), or an exported artefact",
        ),
    ],
    system: Annotated[
        str | None,
        option("--system", metavar="TEXT", help="the system message: how to answer (default: the template's own)"),
    ] = None,
    chat_template: Template = None,
    max_new_tokens: Annotated[
        int | None, setting("max_new_tokens", default="1024, or as many as the model has room for")
    ] = None,
    sampler: Sampler = None,
    seed: Seed = None,
    stop: Stop = None,
    engine: Engine = None,
    assignments: Assignments = None,
    as_json: Annotated[
        bool, option("--json", help="write each answer as a JSON object on a line, as a message of a conversation")
    ] = False,
    backend: Backend = None,
    weights: Weights = None,
) -> int:
    """Read a line, write the answer, and so on to the end of input."""
    settings = generation_settings(context, _SETTINGS, assignments, without=_OF_TEXTS)
    if "sampler" in settings:
        resolving.resolve(settings["sampler"])  # before a model is loaded for it
    writer = sources.open_writer(source, backend=backend, weights=weights, chat_template=chat_template)
    writer.check_chat()
    said = None if system is None else sources.as_text(system)
    _Conversation(writer, settings, said, as_json=as_json).hold()
    return 0


class _Conversation:
    """A conversation so far, and the model that answers.

    Args:
        writer: answers.
        settings: of each answer.
        system: how the assistant shall be, or None.
        as_json: write each answer as an object on a line, when it is complete.
    """

    def __init__(
        self,
        writer: sources.PipelineWriter | sources.ArtefactWriter,
        settings: dict[str, Any],
        system: str | None,
        *,
        as_json: bool = False,
    ) -> None:
        self._writer, self._settings, self._system = writer, settings, system
        self._as_json = as_json
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
                if not self._as_json:
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
        answer = {"role": "assistant", "content": said}
        if self._as_json:
            show_json(answer)
        else:
            show("")
        if said.strip():
            self._messages.append(answer)
        else:
            self._messages.pop()

    def _tell(self, text: str) -> None:
        if self._is_terminal:
            show(text, stream=sys.stderr)
