"""Keeps on disk what XLA compiles for TensorFlow, for later processes.

TensorFlow can do that itself, but not safely: it writes a file in place, and a training step fails where it reads half
of one. So each process has a folder of its own, which begins with what earlier ones kept, and what is new there is
moved to them when it is whole. A damaged file is compiled again.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from kerasgen import cache, devices
from kerasgen.files import staging

VARIABLE: Final = "TF_XLA_FLAGS"
FOLDER: Final = "xla"
MOST_BYTES: Final = 16 << 20
"""Of the programs for one processor and one version of TensorFlow; the oldest are removed."""

_FORMAT: Final = 1
_DIRECTORY: Final = "--tf_xla_persistent_cache_directory="
_LEAST_FREE: Final = 1 << 30  # a step would fail where TensorFlow could not write a program
_OWN: Final = ".process-"
_ABANDONED: Final = 24 * 3600  # seconds; a process whose folder is removed compiles anew, and makes it again
_SUFFIX = ".pb"

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_own: Path | None = None
_shared: Path | None = None
_moved: set[str] = set()


@contextmanager
def used() -> Iterator[None]:
    """Let TensorFlow, which the block imports, keep what it compiles; later blocks do nothing.

    It keeps nothing where the environment names a folder already, where a GPU compiles, where the system doesn't tell
    the processor's features, and where the cache can't be written.
    """
    given = os.environ.get(VARIABLE)
    folder = _begun(given or "")
    if folder is None:
        yield
        return
    own = f"{_DIRECTORY}{folder}"
    os.environ[VARIABLE] = f"{given} {own}" if given else own
    try:
        yield
        _read_flags()
    finally:  # not for the processes that this one starts: none may read what another one is writing
        if given is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = given


def keep() -> None:
    """Move to the other programs what was compiled since the last call."""
    with _lock:
        if _own is None or _shared is None or not _own.is_dir():
            return
        new = [file for file in _own.iterdir() if file.name not in _moved and file.suffix == _SUFFIX]
        try:
            for file in new:
                data = file.read_bytes()
                if _is_whole(data):  # another thread may be compiling
                    staging.replace(_shared / file.name, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
                    _moved.add(file.name)
            if new:
                cache.remove_oldest(_shared.glob(f"*{_SUFFIX}"), MOST_BYTES)
        except OSError as cause:
            _log.warning("%s can't be written, so programs are compiled again next time: %s", _shared, cause)


def _begun(flags: str) -> Path | None:
    """Make this process's folder with the programs kept so far in it, and return it, or None to keep none."""
    global _own, _shared
    with _lock:
        if _own is not None or _DIRECTORY.rstrip("=") in flags or devices.nvidia_gpu():
            return None
        processor = _processor()
        if processor is None or " " in str(folder := cache.directory().absolute() / FOLDER):
            return None
        try:
            if not cache.is_writable(folder):
                return None
            told = [_FORMAT, _version(), processor, os.environ.get("XLA_FLAGS", ""), flags]
            key = json.dumps(told, allow_nan=False)
            _shared = folder / hashlib.sha256(key.encode()).hexdigest()[:32]
            _shared.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < _LEAST_FREE:
                return None
            _sweep(folder)
            _own = Path(tempfile.mkdtemp(prefix=_OWN, dir=folder))
            _moved.update(_copied(_shared, _own))
        except (OSError, ValueError) as cause:
            _log.warning("%s can't be used, so programs are compiled anew: %s", folder, cause)
            return None
        atexit.register(_end, os.getpid())
        return _own


def _end(process: int) -> None:
    if os.getpid() == process and _own is not None:
        keep()
        shutil.rmtree(_own, ignore_errors=True)


def _copied(source: Path, target: Path) -> Iterator[str]:
    """Copy programs whose bytes are what was written, and yield their names."""
    for file in source.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process removed it
            digest, _, data = file.read_bytes().partition(b"\n")
            if hashlib.sha256(data).hexdigest().encode() == digest:
                (target / file.name).write_bytes(data)
                yield file.name


def _is_whole(data: bytes) -> bool:
    """Return whether the bytes are a message of TensorFlow's to its end: its key, its graph and its program."""
    at, fields = 0, set()
    while at < len(data):
        tag, at = _varint(data, at)
        length, at = _varint(data, at)
        if tag & 7 != 2:  # each of its fields has a length
            return False
        at += length
        fields.add(tag >> 3)
    return at == len(data) and {1, 2, 3} <= fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place in bytes, seven bits in each, and the place after it."""
    number = shift = 0
    for place in range(at, len(data)):
        number |= (data[place] & 127) << shift
        shift += 7
        if data[place] < 128:
            return number, place + 1
    return number, len(data) + 1


def _sweep(folder: Path) -> None:
    """Remove the folders that killed processes left."""
    for left in folder.glob(f"{_OWN}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _version() -> list[str | int]:
    """Return what changes when another TensorFlow is installed."""
    found = find_spec("tensorflow")
    if found is None or found.origin is None:
        return []
    status = Path(found.origin).stat()
    return [found.origin, status.st_mtime_ns, status.st_size]


def _processor() -> list[str] | None:
    """Return what changes with the processor that programs are compiled for, or None where Linux doesn't tell."""
    if not devices.cpu_flags():
        return None
    lines = devices.CPU_FLAGS.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
    told = [line for line in lines if line.startswith(("vendor", "cpu family", "model", "CPU "))]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [platform.machine(), *sorted(devices.cpu_flags()), *told, str(cores), str(os.cpu_count())]


def _read_flags() -> None:
    """Let TensorFlow read its flags, which it otherwise does when it compiles for the first time."""
    with suppress(ImportError, AttributeError):  # a version without it keeps nothing
        from tensorflow.python.client import pywrap_tf_session

        pywrap_tf_session.TF_GetXlaConstantFoldingDisabled()
