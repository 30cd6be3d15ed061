"""Builds the parser of the command line; each command's own module adds its arguments."""

from __future__ import annotations

import argparse

import kerasgen
from kerasgen.cli import chat, demo, evaluate, export, fit, generate, list_registered, serve
from kerasgen.cli.arguments import Formatter, Parser

_COMMANDS = (demo, list_registered, fit, generate, chat, evaluate, export, serve)


def parser() -> argparse.ArgumentParser:
    """Return the parser. What it parses has `run`, which takes it and returns the exit status, and `parser`."""
    whole = Parser(
        prog="kerasgen",
        description="From a corpus to a fine-tuned text generator, on Keras 3 and KerasHub.",
        epilog="kerasgen COMMAND --help says what a command takes.",
    )
    whole.add_argument("--version", action="version", version=f"kerasgen {kerasgen.__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for module in _COMMANDS:
        command = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
            formatter_class=Formatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, parser=command)
    return whole
