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
    """Whether it is a directory of this user's, and no link to one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _is_left(path: Path) -> bool:
    """Whether its process is gone. One that doesn't say, or is counted in another namespace, may be alive."""
    try:
        said = limits.read_json(path / HOLDER_FILE)
        holder = locking.Holder.parse(said["holder"].encode())
        namespace = said["namespace"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return holder is not None and namespace == _namespace() and holder.is_gone()


def _namespace() -> str:
    """What numbers processes: in two containers the same number may be two processes."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
