"""A command: runs its function and turns errors and warnings into one line on standard error each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from typer.core import TyperCommand

from kerasgen.cli import json_output
from kerasgen.cli.flags import in_flags
from kerasgen.errors import ArgumentError, KerasgenError, KerasgenWarning, RecipeError
from kerasgen.terminal import show, visible

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


class Command(TyperCommand):
    """A command whose function returns the exit status, or raises one of kerasgen's errors."""

    def invoke(self, ctx: Any) -> Any:
        """Run the function and return the exit status."""
        if not ctx.params.get("as_json"):
            return self._run(ctx)
        with json_output.alone():
            return self._run(ctx)

    def _run(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = partial(self._warn, warnings.showwarning)
                return super().invoke(ctx)
        except RecipeError as error:  # a line each
            return self._tell(ctx, error, str(error).splitlines(), MISUSED)
        except ArgumentError as error:
            return self._tell(ctx, error, [in_flags(str(error), self)], MISUSED)
        except KerasgenError as error:
            return self._tell(ctx, error, [in_flags(str(error), self)], FAILED)
        except KeyboardInterrupt as stop:
            return self._tell(ctx, stop, [in_flags(str(stop), self) or "stopped"], INTERRUPTED)
        except BrokenPipeError:
            raise
        except OSError as error:  # a file that can't be read or written, in Python's words
            return self._tell(ctx, error, [str(error)], FAILED)

    def _tell(self, ctx: Any, error: BaseException, lines: Sequence[str], status: int) -> int:
        """Write an error on standard error, and as JSON on standard output where that is asked for."""
        for line in lines:
            report(line, status)
        if ctx.params.get("as_json"):
            json_output.show_error(type(error).__name__, "\n".join(lines), status)
        return status

    def _warn(
        self,
        otherwise: Callable[..., None],
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        *more: Any,
        **named: Any,
    ) -> None:
        """Tell a warning of ours in one line, without the line of Python that it came from."""
        if isinstance(message, KerasgenWarning):
            report(in_flags(f"warning: {message}", self), 0)
        elif sys.stderr.isatty():  # others' may name a path or a text, which may hold anything
            show(warnings.formatwarning(message, category, filename, lineno), end="", stream=sys.stderr)
        else:
            otherwise(message, category, filename, lineno, *more, **named)


def report(message: str, status: int) -> int:
    """Write a message as one line on standard error, and return the status."""
    print(f"kerasgen: {visible(' '.join(message.split()))}", file=sys.stderr)
    return status
