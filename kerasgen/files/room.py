"""Asks whether a file can become as large as it will, for writers that would end the process if it can't."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path


def require(path: Path, size_bytes: int) -> None:
    """Check that a file of so many bytes can be written, by asking the file system for them and giving them back.

    Args:
        path: where the file will lie; what lies there already counts as free.
        size_bytes: how large it will be.

    Raises:
        OSError: the disk is too full, or a quota or a limit on files is too low.
    """
    more = size_bytes - (path.stat().st_size if path.is_file() else 0)
    if more <= 0:
        return
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        if shutil.disk_usage(path.parent).free < more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return
    with tempfile.TemporaryFile(dir=path.parent) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, more)
        except OSError as cause:
            if cause.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that can't tell
                raise OSError(cause.errno, cause.strerror, str(path)) from cause
