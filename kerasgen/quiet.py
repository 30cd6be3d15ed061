"""Hides what native libraries write to the process's standard error while they are loaded or called.

TensorFlow, LiteRT and their like tell of their build, of devices that they looked for and of what they register, past
Python's own streams and past their own settings. Here the lines that are known to be such are dropped; all others, and
what other threads write meanwhile, come out as they were. If the call fails, the dropped lines are added to its error.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import IO

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# The environment of a process that kerasgen starts. What lies in the working directory is none of its modules, and the
# process is none of a run over several: JAX ends that one of them whose number a second process gives as its own.
CHILD = {"PYTHONUTF8": "1", "PYTHONSAFEPATH": "1", LEVEL: "3", "KERAS_DISTRIBUTION_NUM_PROCESSES": ""}
_STANDARD_ERROR = 2
_NOISE = re.compile(
    rb"""(?x)
      [IW]\d{4}\ [\d:.]+\ .*                                  # absl's: information and warnings
    | E\d{4}\ [\d:.]+\ .*(cuInit|cuda|CUDA|cuDNN|cuBLAS|TensorRT).*   # a graphics card that isn't there
    | WARNING:\ (All\ log\ messages\ before\ absl|Logging\ before\ InitGoogle).*
    | To\ enable\ the\ following\ instructions:.*             # the second line of one of absl's
    | (INFO|VERBOSE|WARNING):\ \[\w+\.(cc|h):\d+\].*          # LiteRT's
    | \xe2\x94\x94\ .*                                        # its further lines
    | INFO:\ (Created\ TensorFlow\ Lite|Initialized\ TensorFlow\ Lite|Applying\ ).*
    """
)
_one_at_a_time = threading.RLock()
_depth = 0


def _renew() -> None:
    """Let a forked child begin with a lock that no thread of its parent holds."""
    global _one_at_a_time, _depth
    _one_at_a_time, _depth = threading.RLock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def set_level() -> None:
    """Let TensorFlow tell of failures alone, unless the environment says otherwise; before it is imported."""
    os.environ.setdefault(LEVEL, "3")


def load(name: str) -> ModuleType:
    """Import and return a module, without what it and its libraries print."""
    if name in sys.modules:
        return import_module(name)
    set_level()
    with quietly():
        return import_module(name)


@contextlib.contextmanager
def quietly(also: re.Pattern[bytes] | None = None) -> Iterator[None]:
    """Drop the lines of native libraries while the block runs; `TF_CPP_MIN_LOG_LEVEL=0` asks for them.

    Args:
        also: other lines to drop, those that this one call is known for.

    Raises:
        Exception: the block's own, with the lines as a note.
    """
    global _depth
    with _one_at_a_time:
        if _depth or os.environ.get(LEVEL) == "0":
            yield
            return
        try:
            standard_error = os.dup(_STANDARD_ERROR)
        except OSError:  # the process has no standard error
            yield
            return
        _depth += 1
        try:
            with tempfile.TemporaryFile() as written:
                _flush()
                os.dup2(written.fileno(), _STANDARD_ERROR)
                try:
                    yield
                except BaseException as error:
                    dropped = _put_back(standard_error, written, also)
                    if dropped and isinstance(error, Exception):
                        error.add_note(dropped.decode("utf-8", "replace"))
                    raise
                else:
                    _put_back(standard_error, written, also)
        finally:
            os.close(standard_error)
            _depth -= 1


class _NoRetracing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def several_models() -> Iterator[None]:
    """Drop TensorFlow's advice against tracing a function of Keras's again: each of several models has one."""
    logger, ours = logging.getLogger("tensorflow"), _NoRetracing()
    logger.addFilter(ours)
    try:
        yield
    finally:
        logger.removeFilter(ours)


@functools.cache
def at_the_end() -> None:
    """Silence standard error at Python's end, when libraries print about what they destroy."""
    if os.environ.get(LEVEL) != "0":
        atexit.register(_close_standard_error)


def _close_standard_error() -> None:
    _flush()
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STANDARD_ERROR)
        os.close(nowhere)


def _put_back(standard_error: int, written: IO[bytes], also: re.Pattern[bytes] | None) -> bytes:
    """Give the process its standard error back, write there what is no noise, and return the noise."""
    _flush()
    os.dup2(standard_error, _STANDARD_ERROR)
    written.seek(0)
    dropped = []
    for line in written:
        if _NOISE.match(line) or (also is not None and also.fullmatch(line)):
            dropped.append(line)
        else:
            with contextlib.suppress(OSError):
                os.write(_STANDARD_ERROR, line)
    return b"".join(dropped).strip()


def _flush() -> None:
    with contextlib.suppress(Exception):  # a stream that somebody closed or replaced
        sys.stderr.flush()
