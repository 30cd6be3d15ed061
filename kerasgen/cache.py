"""The cache of what kerasgen can make again: token ids, artefacts, measurements of this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from kerasgen import limits
from kerasgen.errors import LockedError
from kerasgen.files import locking, staging
from kerasgen.files.path_arguments import path_argument

VARIABLE: Final = "KERASGEN_CACHE"
"""The environment variable that names another directory than the user's own."""

KINDS: Final = {
    "documents": "documents of corpora that are slow to read",
    "tokens": "token ids of corpora",
    "splits": "near-duplicates of corpora",
    "vocabularies": "vocabularies fitted to corpora",
    "engines": "models as LiteRT runs them",
    "litert": "weights as LiteRT multiplies them",
    "jax": "programs that JAX compiled",
    "xla": "programs that TensorFlow compiled",
}
"""The folders of the cache, with what lies in each. All of it is made again when it is needed."""

_USERS: Final = ".in-use"  # a lock for each run that uses the cache
_CLEANING: Final = "clean"

_log = logging.getLogger(__name__)


def directory(chosen: str | os.PathLike[str] | None = None) -> Path:
    """Return `chosen`, else what `KERASGEN_CACHE` names, else kerasgen's folder among the user's caches."""
    from platformdirs import user_cache_path

    named = chosen or os.environ.get(VARIABLE) or user_cache_path("kerasgen")
    return path_argument(named, name=VARIABLE if named is not chosen else "cache")


def kept(path: Path | None, make: Callable[[], dict[str, Any]], *, again: str) -> dict[str, Any]:
    """Return the JSON object that a file of the cache holds, or else make it and keep it there.

    The file holds the object's SHA-256 besides. A file that is damaged is written anew.

    Args:
        path: the path of the file, or None to keep nothing.
        make: makes the object.
        again: what is done next time if the file can't be written, for a warning.
    """
    found = None if path is None else read(path)
    if path is None or found is not None:
        return make() if found is None else found
    made = make()
    write(path, made, again=again)
    return made


def read(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that `write` wrote, or None where nothing is or it is damaged."""
    try:
        record = limits.read_json(path)
        content = record["content"]
        if isinstance(content, dict) and record["sha256"] == _digest(content):
            return content
        _log.warning("%s is damaged, and is written anew.", path)
    except (OSError, ValueError, KeyError, TypeError):  # nothing is there, or nothing that can be read
        pass
    return None


def write(path: Path, content: dict[str, Any], *, again: str) -> None:
    """Write a JSON object and its SHA-256, whole or not at all; see `kept`."""
    try:
        staging.replace(path, json.dumps({"sha256": _digest(content), "content": content}, allow_nan=False))
    except OSError as cause:
        _log.warning("%s can't be written, so %s next time: %s", path, again, cause)


@contextmanager
def in_use(chosen: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Keep `clean`, in any process, from the cache for as long as the block runs.

    Args:
        chosen: as for `directory`. Where nothing can be written there, nothing is kept there either.
    """
    folder = directory(chosen)
    with ExitStack() as stack:
        if is_writable(folder):
            with suppress(OSError), locking.locked(folder / _CLEANING, wait=True):
                user = locking.locked(folder / _USERS / uuid.uuid4().hex, advice="or end it")
                stack.enter_context(user)
        yield


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which is made where it is missing."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def has_room(folder: Path, size_bytes: int) -> bool:
    """Whether the disk of a folder, which may be missing, has so many bytes free."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    try:
        return shutil.disk_usage(there).free >= size_bytes
    except OSError:
        return False


def remove_empty(folder: Path) -> None:
    """Remove the empty files of a folder, which a full disk left there."""
    with suppress(OSError):
        for file in os.scandir(folder):
            with suppress(OSError):  # another process removed it
                if file.is_file(follow_symlinks=False) and file.stat(follow_symlinks=False).st_size == 0:
                    Path(file.path).unlink(missing_ok=True)


def remove_oldest(files: Iterable[Path], most_bytes: int) -> None:
    """Remove files from the one that was written or used longest ago on, until the others are within a bound."""
    found = []
    for file in files:
        with suppress(OSError):  # another process removed it
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most_bytes:
            return
        file.unlink(missing_ok=True)
        total -= size


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the number of files and of their bytes in each of the cache's folders that is there.

    Args:
        folder: the cache's.
    """
    return {kind: _sized(folder / kind) for kind in KINDS if (folder / kind).is_dir()}


def clean(folder: Path, kinds: Iterable[str] = KINDS) -> dict[str, tuple[int, int]]:
    """Remove what lies in the cache's folders, and return how many files and bytes that were in each.

    Nothing else in the directory is touched. A run that begins meanwhile waits until the cache is clean.

    Args:
        folder: the cache's.
        kinds: of `KINDS`, those to remove.

    Raises:
        LockedError: a run is using the cache; nothing is removed.
    """
    kinds = set(kinds)
    if not folder.is_dir():
        return {}
    with locking.locked(folder / _CLEANING, wait=True):
        _require_unused(folder)
        removed = {kind: size for kind, size in sizes(folder).items() if kind in kinds}
        for kind in removed:
            staging.remove(folder / kind)
    return removed


def _require_unused(folder: Path) -> None:
    """Raise if a run uses the cache; what killed ones left is removed."""
    users = folder / _USERS
    for place in users.glob(".*.lock") if users.is_dir() else ():
        lock = locking.try_lock(place)
        if lock is not None:
            lock.release()
            continue
        with suppress(OSError):
            holder = locking.Holder.parse(place.read_bytes())
            named: dict[str, Any] = {}
            who = "a run"
            if holder is not None:
                named = {"pid": holder.pid, "host": holder.host, "since": holder.since}
                who = f"process {holder.pid} on {holder.host!r}, since {holder.since}"
            raise LockedError(
                f"The cache {folder} is in use by {who}, so nothing is removed. Wait until it has ended.",
                path=folder,
                **named,
            )
    with suppress(OSError):  # not empty: there are users whose locks the file system can't tell
        users.rmdir()


def _sized(folder: Path) -> tuple[int, int]:
    """Return the number of files below a directory, and their size in bytes; links are not followed."""
    files = size_bytes = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            try:
                size_bytes += os.lstat(os.path.join(inner, name)).st_size  # noqa: PTH118  a cache has many files
            except OSError:  # another process took it away meanwhile
                continue
            files += 1
    return files, size_bytes
