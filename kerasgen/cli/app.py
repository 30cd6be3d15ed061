"""Declares the commands; a command's own module is imported when the command is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

import kerasgen
from kerasgen.cli.command import Command
from kerasgen.terminal import show

COMMANDS: Final = {
    "demo": ("demo", "tune the starter on the sample corpus, and show what changed"),
    "list": (
        "list_registered",
        "show what is registered: corpora, models, tuners, samplers, constraints, exporters",
    ),
    "fit": ("fit", "tune a model on a corpus and save it"),
    "recipe": ("recipe", "check a recipe, or write the schema of recipes for editors"),
    "generate": ("generate", "write text with a saved pipeline, a model or an exported artefact"),
    "chat": ("chat", "talk with a saved pipeline, a model or an exported artefact that has a chat template"),
    "evaluate": ("evaluate", "score texts under a saved pipeline or a model"),
    "report": ("run_report", "write the report of a saved pipeline or a finished run as one page for a browser"),
    "export": ("export", "write a saved pipeline's model, or a model, in another format, and prove it equal"),
    "push": ("push", "push a saved pipeline, its model card and proved artefacts to a hub, as one commit"),
    "serve": (
        "serve",
        "serve a saved pipeline, a model or an artefact over HTTP as OpenAI's API does, or show an exported page",
    ),
    "plugins": ("plugins", "list what packages bring, with what is at fault; check one; or write a new package"),
    "doctor": (
        "doctor",
        "show what is installed and what would compute, and estimate what a recipe's run will take",
    ),
    "cache": ("cache_files", "show how large the cache is, or remove what it holds"),
}
"""The module and the summary of each command, in the order of the help text."""

_STATUSES = "The exit status is 0, 1 for a failure, 2 for wrong arguments, and 130 after Ctrl-C."


def load(name: str) -> Command:
    """Return a command, with its module imported.

    Args:
        name: one of `COMMANDS`.
    """
    module, summary = COMMANDS[name]
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    help_text = f"{summary[0].upper()}{summary[1:]}."
    single.command(name, cls=Command, help=help_text)(import_module(f"kerasgen.cli.{module}").run)
    command = get_command(single)
    assert isinstance(command, Command)
    return command


class _Commands(TyperGroup):
    """The group of commands, each made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _show_version(asked: bool) -> None:
    if asked:
        show(f"kerasgen {kerasgen.__version__}")
        raise SystemExit(0)


app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="From a corpus to a fine-tuned text generator, on Keras 3 and KerasHub.",
    epilog=f"kerasgen COMMAND --help says what a command takes. {_STATUSES}",
)


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="show the version and exit")
    ] = False,
) -> None:
    """Take what stands before the command."""
