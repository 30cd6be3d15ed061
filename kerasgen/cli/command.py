"""A command: runs its function and turns errors and warnings into one line on standard error each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from typer.core import TyperCommand

from kerasgen.cli.flags import in_flags
from kerasgen.errors import ArgumentError, KerasgenError, KerasgenWarning, RecipeError
from kerasgen.terminal import visible

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


class Command(TyperCommand):
    """A command whose function returns the exit status, or raises one of kerasgen's errors."""

    def invoke(self, ctx: Any) -> Any:
        """Run the function and return the exit status."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = partial(self._warn, warnings.showwarning)
                return super().invoke(ctx)
        except RecipeError as error:  # a line each
            return max(report(line, MISUSED) for line in str(error).splitlines())
        except ArgumentError as error:
            return report(in_flags(str(error), self), MISUSED)
        except KerasgenError as error:
            return report(in_flags(str(error), self), FAILED)
        except KeyboardInterrupt as stop:
            return report(in_flags(str(stop), self) or "stopped", INTERRUPTED)
        except BrokenPipeError:
            raise
        except OSError as error:  # a file that can't be read or written, in Python's words
            return report(str(error), FAILED)

    def _warn(self, otherwise: Callable[..., None], message: Warning | str, *where: Any, **more: Any) -> None:
        """Tell a warning of ours in one line, without the line of Python that it came from."""
        if isinstance(message, KerasgenWarning):
            report(in_flags(f"warning: {message}", self), 0)
        else:
            otherwise(message, *where, **more)


def report(message: str, status: int) -> int:
    """Write a message as one line on standard error, and return the status."""
    print(f"kerasgen: {visible(' '.join(message.split()))}", file=sys.stderr)
    return status
