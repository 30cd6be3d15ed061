"""Checks by SHA-256 that an artefact's file is the one that was exported, and remembers the result.

Hashing 500 MB takes 0.8 s on one core. A file whose size, times and inode are those of one that was hashed is not read
again; what was seen is kept beside XNNPACK's weight cache, which is thrown away where it was made of other weights.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.files import staging
from kerasgen.files.digests import sha256_of

_SUFFIX = ".verified.json"  # after the whole name of the weight cache


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
    note, seen = weight_cache.with_name(weight_cache.name + _SUFFIX), {"sha256": sha256, "file": _identity(path)}
    before = _read(note)
    if before == seen:
        return
    _compare(path, sha256)
    if before.get("sha256") != sha256:
        weight_cache.unlink(missing_ok=True)
    staging.replace(note, json.dumps(seen, allow_nan=False))


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
