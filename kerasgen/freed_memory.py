"""Gives memory that was freed back to the system. Imports the standard library only."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any


def give_back() -> None:
    """Return the pages that hold nothing any more to the system, where the C library is able to.

    glibc keeps arrays of up to 32 MB that were freed between others that live: of GPT-2's base shape some 200 MB, once
    its layers had been laid out anew one after the other (see the log).
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # musl has none
        return None
    return found
