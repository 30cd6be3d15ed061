"""Reads the arguments of public calls that are paths: text, or anything with `__fspath__`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kerasgen.errors import ArgumentError


def path_argument(value: Any, error: type[ArgumentError] = ArgumentError, *, name: str = "path") -> Path:
    """Return an argument as a path; a `~` at its beginning stands for the user's home.

    Args:
        value: what was given.
        error: what is raised if it is no path.
        name: the argument's, for the message.

    Raises:
        ArgumentError: it is neither text nor an `os.PathLike` of text, is empty, or begins with the home of a
            user who is not there. `error` says of which kind.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text:
        raise error(
            f"`{name}` must be a path: a string or an os.PathLike, and not empty. Received: "
            f"{value!r:.200} of type {type(value).__name__}."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as cause:
        raise error(f"`{name}` begins with the home of a user who is not there. Received: {text!r}.") from cause
