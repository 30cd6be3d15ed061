"""Lets HDF5 write to a Python file, so that a full disk raises an error and doesn't end the process.

When a write fails, HDF5 can neither finish nor give up its file, and closing it ends in a segmentation fault. It writes
through this instead, which keeps the first error to itself, takes what else comes without writing it, and raises the
error when HDF5 is done.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def writing(path: Path) -> Iterator[Hdf5File]:
    """Yield a new file for `h5py.File(file, "w")` or Keras's `save_weights(file)`; a failed one is removed.

    Args:
        path: the path of the file.

    Raises:
        OSError: something of it could not be written.
    """
    with path.open("w+b", buffering=0) as raw:
        file = Hdf5File(path, raw)
        yield file
        file.sync()
    if file.error is not None:
        path.unlink(missing_ok=True)
        raise file.error


class Hdf5File(io.BytesIO):
    """What `writing` yields. Keras takes paths and `BytesIO` objects, and this is one of them by name alone.

    Args:
        path: the path that the file tells Keras.
        raw: the file, open and without a buffer.
    """

    def __init__(self, path: Path, raw: io.FileIO) -> None:
        super().__init__()
        self._path, self._raw = path, raw
        self._at = self._end = 0
        self.error: OSError | None = None

    def __str__(self) -> str:
        return str(self._path)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place; beyond the end is one too."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def write(self, data: Any, /) -> int:
        """Write at the place, or only say so if a write has failed before."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            self._raw.seek(self._at)
            while left and self.error is None:
                left = left[self._raw.write(left) or 0 :]
        except OSError as cause:
            self.error = cause
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def readinto(self, buffer: Any, /) -> int:
        """Read at the place; what was never written is zeros."""
        view = memoryview(buffer).cast("B")
        self._raw.seek(self._at)
        count = 0
        while count < len(view):
            more = self._raw.readinto(view[count:])
            if not more:
                break
            count += more
        view[count:] = bytes(len(view) - count)
        self._at += len(view)
        return len(view)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return what `readinto` reads."""
        data = bytearray(self._end - self._at if size is None or size < 0 else size)
        self.readinto(data)
        return bytes(data)

    def truncate(self, size: int | None = None, /) -> int:
        """Give the file a size."""
        self._end = self._at if size is None else size
        try:
            if self.error is None:
                self._raw.truncate(self._end)
        except OSError as cause:
            self.error = cause
        return self._end

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def sync(self) -> None:
        """Bring it to the disk, which may be full only now."""
        try:
            os.fsync(self._raw.fileno())
        except OSError as cause:
            self.error = self.error or cause
