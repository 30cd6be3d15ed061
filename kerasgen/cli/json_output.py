"""Standard output for a program: one line of JSON for an answer or an error, and nothing that anybody else prints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from kerasgen.terminal import show

# JSON escapes what is below a space itself.
_OBEYED_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_kept: list[TextIO] = []
"""Standard output, while everybody else's goes to standard error."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let `show_json` alone write to standard output.

    What else is printed, by a package or by C and C++ behind Python's back, goes to standard error.
    """
    own = sys.stdout
    own.flush()
    with contextlib.ExitStack() as stack:
        if _descriptor(own) == 1 and _descriptor(sys.stderr) == 2:
            again = os.dup(1)
            stack.callback(os.close, again)
            os.dup2(2, 1)
            stack.callback(os.dup2, again, 1)
            own = stack.enter_context(open(os.dup(again), "w", encoding="utf-8", errors="replace"))  # noqa: PTH123
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        _kept.append(own)
        stack.callback(_kept.remove, own)
        yield


def show_json(value: Any) -> None:
    """Write a value as one line of JSON; what a terminal would obey is escaped, and every text stays the same."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    stream = _kept[-1] if _kept else None
    show(_OBEYED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text), stream=stream)


def show_error(kind: str, message: str, status: int) -> None:
    """Write what is wrong as one line of JSON.

    Args:
        kind: the name of the error's class.
        message: what standard error says too.
        status: the exit status.
    """
    show_json({"error": {"type": kind, "message": message, "status": status}})


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: dataclasses as objects, bytes as text, numbers that are none as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return plain(value.item()) if hasattr(value, "item") else str(value)


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):  # what stands in for it has none, or it is closed
        return None
