"""Escapes text from models, files and networks so that a terminal only shows it.

A terminal obeys some characters: ESC begins commands that recolour, erase, retitle or paste, a carriage return writes
over what was said, and marks of direction show a line in another order than it has. They are shown as Python's escapes
wherever kerasgen writes to a terminal, and in every message of an error. What is written to a file or a pipe, and what
is returned, is the text itself.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final, TextIO

# Controls but tab and line feed (C0, DEL, C1), separators of lines, marks and isolates of direction, halves of pairs.
_OBEYED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return the text with what a terminal would obey as escapes such as `\x1b`, tabs and line ends as they are."""
    return _OBEYED.sub(_escape, text.replace("\r\n", "\n"))


def show(value: object, *, end: str = "\n", stream: TextIO | None = None) -> None:
    """Write a value's text to a stream and flush it, `visible` if that is a terminal.

    Args:
        value: what to write.
        end: written after it.
        stream: standard output, unless another is given.
    """
    stream = sys.stdout if stream is None else stream
    text = str(value)
    is_terminal = getattr(stream, "isatty", None)  # what stands in for standard output may have fewer methods
    stream.write((visible(text) if is_terminal is not None and is_terminal() else text) + end)
    if hasattr(stream, "flush"):
        stream.flush()


def size_for_bars() -> dict[str, int]:
    """Return `ncols` and `nrows` for `tqdm` where standard error is a terminal that tells no size; else nothing.

    Some terminals, in containers and under programs that drive them, have 0 rows and columns, and `tqdm` shows
    nothing in them.
    """
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # no terminal
        return {}
    if size.columns > 0 and size.lines > 0:
        return {}
    return {"ncols": size.columns or 80, "nrows": size.lines or 24}


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
