"""Limits on what is read from files and networks; an environment variable raises each.

A corpus, an archive or a server may be endless, by accident or on purpose. Each limit is far above what an honest file
needs, is checked while reading, and is named by the error with the variable that raises it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kerasgen.errors import ArgumentError

PREFIX = "KERASGEN_MAX_"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


@dataclass(frozen=True)
class Limits:
    """Limits of what is read from files and networks, in bytes; more is an error.

    Each field is raised, or lowered, by the environment variable `KERASGEN_MAX_` and its name in capitals, such as
    `KERASGEN_MAX_LINE_BYTES=2G`: a whole number, with k, M, G or T for powers of 1,024.

    Args:
        line_bytes: a line of a text, of JSON lines or of CSV.
        document_bytes: a document: a text of a whole file, a paragraph, a row of CSV, a file in an archive.
        expansion: how many times its compressed size a file may have when it is decompressed; asked only above
            `expansion_floor_bytes`.
        expansion_floor_bytes: what a compressed file may always hold.
        decompressed_bytes: a compressed file, decompressed.
        members: files in an archive, wanted or not.
        files: files in a folder or of a glob.
        depth: folders in one another.
        json_bytes: a JSON file that is read whole, such as a model's configuration or vocabulary.
        download_bytes: a download.
        download_seconds: a download, all its attempts together.
    """

    line_bytes: int = 64 << 20
    document_bytes: int = 512 << 20
    expansion: int = 200
    expansion_floor_bytes: int = 64 << 20
    decompressed_bytes: int = 256 << 30
    members: int = 2_000_000
    files: int = 2_000_000
    depth: int = 100
    json_bytes: int = 512 << 20
    download_bytes: int = 4 << 30
    download_seconds: int = 48 * 3600

    @classmethod
    def current(cls) -> Limits:
        """Return the limits as the environment sets them now.

        Raises:
            ArgumentError: a variable is no such number.
        """
        settings = {}
        for field in fields(cls):
            text = os.environ.get(variable(field.name))
            if text is not None:
                settings[field.name] = _number(text, variable(field.name))
        return cls(**settings)


def variable(name: str) -> str:
    """Return the environment variable of a limit."""
    return PREFIX + name.upper()


def advice(name: str, value: int) -> str:
    """Return the sentence that says how a limit is raised; ends an error's message."""
    return f"The limit is {value:,}; raise it with the environment variable {variable(name)} if this is meant."


def kind_of_irregular(path: Path) -> str | None:
    """Return the kind of a path that is no regular file, such as "a pipe"; None for a regular file.

    Raises:
        OSError: nothing is there, or it may not be looked at.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")


def parse_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return the value of a JSON text.

    Args:
        text: as it was read.
        parse_constant: what becomes of NaN and Infinity, by their names; None takes them as numbers.

    Raises:
        ValueError: it is none, is nested too deeply, or holds a number of more digits than Python reads.
    """
    try:
        return json.loads(text, parse_constant=parse_constant)
    except RecursionError as cause:
        raise ValueError("it is nested too deeply") from cause
    except UnicodeDecodeError as cause:  # Python guesses UTF-16 and UTF-32 too, and names one that nobody meant
        raise ValueError("it is no text") from cause


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        OSError: it can't be read.
        ValueError: as `read_bytes`, or it is no JSON. NaN and Infinity, which Python's own reader takes, are refused.
    """
    return parse_json(read_bytes(path), parse_constant=_no_number)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON's")


def read_bytes(path: Path) -> bytes:
    """Read a whole file, such as a model's vocabulary.

    Raises:
        OSError: it can't be read.
        ValueError: it is no regular file, or is larger than `Limits.json_bytes`.
    """
    kind = kind_of_irregular(path)
    if kind is not None:
        raise ValueError(f"{str(path)!r} is {kind}, and no file")
    limit = Limits.current().json_bytes
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{str(path)!r} holds more than {limit:,} bytes. {advice('json_bytes', limit)}")
    return data


def _number(text: str, name: str) -> int:
    digits = text.strip().lower().removesuffix("b")
    unit = digits[-1:] if digits[-1:] in tuple("kmgt") else ""
    digits = digits.removesuffix(unit)
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18 or int(digits) == 0:
        raise ArgumentError(
            f"The environment variable {name} must be a whole number from 1, with k, M, G or T after it if you like, "
            f"such as 2G. Received: {text!r}."
        )
    return int(digits) * _UNITS[unit]
