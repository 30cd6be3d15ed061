"""Checks by SHA-256 that an artefact's file is the one that was exported, and remembers the result.

Hashing 500 MB takes 0.8 s on one core. A file whose size, times and inode are those of one that was hashed is not read
again; what was seen is kept beside XNNPACK's weight cache. That is thrown away where it was made of other weights, or
is not the file that XNNPACK left: it looks at its first bytes alone, and takes the others for weights.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.files import locking, staging
from kerasgen.files.digests import sha256_of

_SUFFIX = ".verified.json"  # after the whole name of the weight cache
_CACHE = "weight_cache"


def check_sha256(path: Path, sha256: str, *, weight_cache: Path | None = None) -> None:
    """Check that a file holds what was exported, and that a weight cache, if there is one, was made of it.

    Args:
        path: the file.
        sha256: what the export said of it, as hexadecimal digits.
        weight_cache: XNNPACK's file for these weights, which may not be there yet; None keeps nothing of the check.

    Raises:
        ModelFormatError: the file is another one.
        OSError: what was seen can't be kept.
    """
    if weight_cache is None:
        _compare(path, sha256)
        return
    note, seen = _note(weight_cache), {"sha256": sha256, "file": _identity(path)}
    before = _read(note)
    if all(before.get(name) == value for name, value in seen.items()):
        return
    _compare(path, sha256)
    if before.get("sha256") == sha256 and _CACHE in before:
        seen[_CACHE] = before[_CACHE]
    staging.replace(note, json.dumps(seen, allow_nan=False))


def begin_to_check_files(path: Path, description: Mapping[str, Any]) -> Callable[[], None]:
    """Begin to compare the files of an artefact that is a directory with their SHA-256, in a thread.

    Args:
        path: the directory, whose files have the sizes that were written.
        description: its JSON. An artefact of an earlier version names no SHA-256, and nothing is compared.

    Returns:
        What waits for the result, and raises `ModelFormatError` for a file that is not the one that was exported.
    """

    def check() -> None:
        for name, sha256 in description.get("sha256_of_files", {}).items():
            try:
                _compare(path / name, sha256)
            except OSError as cause:
                raise ModelFormatError(f"{path / name} can't be read: {cause}. Copy or export it again.") from cause

    pool = ThreadPoolExecutor(1, thread_name_prefix="kerasgen-digests")
    checked = pool.submit(check)
    pool.shutdown(wait=False)
    return checked.result


def is_known(weight_cache: Path) -> bool:
    """Return whether a weight cache is the file that XNNPACK left there, of the weights that were checked last."""
    with contextlib.suppress(OSError):
        return bool(_read(_note(weight_cache)).get(_CACHE) == _identity(weight_cache))
    return False


@contextlib.contextmanager
def written_by_one(weight_cache: Path) -> Iterator[None]:
    """Let XNNPACK use its weight cache in the block, or make it there in place, while no other process does.

    Raises:
        OSError: a file that is none of XNNPACK's, or half of one, can't be removed.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # an existing file may be in a read-only place
            stack.enter_context(locking.locked(weight_cache, wait=True))
        was_known = is_known(weight_cache)
        if not was_known:
            weight_cache.unlink(missing_ok=True)
        yield
        if not was_known:
            with contextlib.suppress(OSError):  # then it is made anew next time
                told = _read(_note(weight_cache)) | {_CACHE: _identity(weight_cache)}
                staging.replace(_note(weight_cache), json.dumps(told, allow_nan=False))


def _note(weight_cache: Path) -> Path:
    return weight_cache.with_name(weight_cache.name + _SUFFIX)


def _compare(path: Path, sha256: str) -> None:
    actual = sha256_of(path)
    if actual != sha256:
        raise ModelFormatError(
            f"{path} is not the file that was exported with what lies beside it: its SHA-256 begins with "
            f"{actual[:12]}, and {sha256[:12]} was written. Copy the files of one export together."
        )


def _identity(path: Path) -> list[Any]:
    """Return a value that changes when a file's content does, as JSON gives it back."""
    status = path.stat()
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(note: Path) -> dict[str, Any]:
    try:
        verified = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return verified if isinstance(verified, dict) else {}
