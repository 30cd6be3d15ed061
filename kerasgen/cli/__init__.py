"""`kerasgen` on the command line: a thin face over `Pipeline`. Exit statuses are 0, 1, 2 and 130."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kerasgen import quiet
from kerasgen.cli.flags import in_flags, unrecognized
from kerasgen.cli.parser import parser
from kerasgen.errors import ArgumentError, KerasgenError, KerasgenWarning
from kerasgen.terminal import visible

__all__ = ["main", "parser"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status.

    Args:
        arguments: the arguments of the command line; None for the process's own.

    Returns:
        0; 1 for a failure, 2 for wrong arguments (each said in one line on standard error), 130 after Ctrl-C.

    Raises:
        SystemExit: argparse has shown a help text or what is wrong with the arguments.
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
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone away is known
    except BrokenPipeError:
        # The reader has had enough (head, less). Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: Sequence[str] | None) -> int:
    chosen, unknown = parser().parse_known_args(arguments)
    if unknown:
        chosen.parser.error(unrecognized(unknown, chosen.parser))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, warnings.showwarning, chosen.parser)
            status: int = chosen.run(chosen)
    except ArgumentError as error:
        return _report(in_flags(str(error), chosen.parser), MISUSED)
    except KerasgenError as error:
        return _report(in_flags(str(error), chosen.parser), FAILED)
    except KeyboardInterrupt as stop:
        return _report(in_flags(str(stop), chosen.parser) or "stopped", INTERRUPTED)
    except BrokenPipeError:
        raise
    except OSError as error:  # a file that can't be read or written, in Python's words
        return _report(str(error), FAILED)
    return status


def _warn(
    otherwise: Callable[..., None], command: argparse.ArgumentParser, message: Warning | str, *where: Any, **more: Any
) -> None:
    """Tell a warning of ours in one line, without the line of Python that it came from."""
    if isinstance(message, KerasgenWarning):
        _report(in_flags(f"warning: {message}", command), 0)
    else:
        otherwise(message, *where, **more)


def _report(message: str, status: int) -> int:
    print(f"kerasgen: {visible(' '.join(message.split()))}", file=sys.stderr)
    return status
