"""Writes files that are whole and on the disk before they have their names, even if the power fails."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_FATAL = {errno.EIO, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write(path: Path, data: bytes | memoryview | str) -> None:
    """Write a file, whole or not at all; what lies there is replaced, and its directory is made.

    Args:
        path: the path of the file.
        data: all of it; text becomes UTF-8.

    Raises:
        OSError: it can't be written; what lay there still does.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def json_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of JSON in UTF-8; only where it holds a lone surrogate, all of it is escaped."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False).encode("ascii") + b"\n"


def sync(path: Path) -> None:
    """Wait until a file, or a directory with all that is in it, is on the disk.

    Raises:
        OSError: the disk says that it is not.
    """
    if path.is_symlink():
        return
    if not path.is_dir():
        _sync(path, os.O_RDONLY)
        return
    for inner in path.iterdir():
        sync(inner)
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Wait until a directory's names are on the disk, where the system has a way to ask for it."""
    if os.name == "posix":
        _sync(path, os.O_RDONLY | _DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    except OSError as cause:
        if not path.is_dir() or cause.errno in _FATAL:
            raise  # some network file systems have no way to ask for a directory
    finally:
        os.close(file)
