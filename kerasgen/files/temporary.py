"""Makes folders in the system's temporary directory, and removes those that killed processes left there."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kerasgen import limits
from kerasgen.files import locking

PREFIX = "kerasgen-"
HOLDER_FILE = ".kerasgen-holder.json"


@contextmanager
def folder() -> Iterator[str]:
    """Yield the path of an empty folder, which is removed at the end; those of killed processes are removed before.

    Raises:
        OSError: none can be made.
    """
    sweep()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as outer:
        holder = {"holder": locking.Holder.this_process().to_bytes().decode(), "namespace": _namespace()}
        (Path(outer) / HOLDER_FILE).write_text(json.dumps(holder, allow_nan=False), encoding="utf-8")
        inner = Path(outer) / "files"
        inner.mkdir()
        yield str(inner)


def sweep() -> None:
    """Remove this user's folders whose process is known to have ended; all others stay, and no error is raised."""
    with suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            if _is_own(path) and _is_left(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_own(path: Path) -> bool:
    """Whether `path` is a directory (no link) that this user owns."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


def _is_left(path: Path) -> bool:
    """Whether the folder's process is gone. A process that is unnamed or of another namespace may be alive."""
    try:
        record = limits.read_json(path / HOLDER_FILE)
        holder = locking.Holder.parse(record["holder"].encode())
        namespace = record["namespace"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return holder is not None and namespace == _namespace() and holder.is_gone()


def _namespace() -> str:
    """Return the namespace of process numbers: in two containers one number may mean two processes."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
