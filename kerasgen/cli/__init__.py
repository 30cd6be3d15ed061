"""`kerasgen` on the command line: a thin face over `Pipeline`. Exit statuses are 0, 1, 2 and 130."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from typer.exceptions import Abort, TyperException
from typer.main import get_command

from kerasgen import quiet
from kerasgen.cli import json_output
from kerasgen.cli.app import COMMANDS, app, load
from kerasgen.cli.command import INTERRUPTED, MISUSED, report
from kerasgen.cli.flags import misused

__all__ = ["COMMANDS", "load", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status.

    Args:
        arguments: the arguments of the command line; None for the process's own.

    Returns:
        0; 1 for a failure, 2 for wrong arguments (each said in one line on standard error), 130 after Ctrl-C.

    Raises:
        SystemExit: the version was shown, or what is wrong with the form of the arguments.
    """
    for name in ("stdout", "stderr"):  # closed (`>&-`), Python has none
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  as long as the process
    # A terminal or a pipe may be set to another encoding; the texts here are rarely ASCII.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    # TensorFlow, where a backend or a package brings it in, tells of its build on every start.
    quiet.set_level()
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # here, where a reader that has gone away is known
    except (BrokenPipeError, SystemExit) as end:
        # Typer makes an exit with the status 1 of a broken pipe.
        if not isinstance(end, BrokenPipeError) and not isinstance(end.__context__, BrokenPipeError):
            raise
        # The reader has had enough (head, less). Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    try:
        return int(get_command(app).main(args=arguments, prog_name="kerasgen", standalone_mode=False) or 0)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if context is not None:
            print(context.get_usage(), file=sys.stderr)
        message = misused(error, arguments, COMMANDS)
        if _asks_for_json(arguments):
            json_output.show_error("ArgumentError", message, MISUSED)
        raise SystemExit(report(message, MISUSED)) from None
    except Abort:
        return report("stopped", INTERRUPTED)


def _asks_for_json(arguments: Sequence[str]) -> bool:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options
