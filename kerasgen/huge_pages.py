"""Allocates NumPy arrays where pages of 2 MB fit, and moves memory into such pages, which a processor reads faster.

A processor's prefetcher stops at a page's end, and its table of addresses holds few pages: a loop that reads weights
took 24 GB/s in small pages and 28 in huge ones on an AMD EPYC, and XLA's products gain as much (see the log). A system
may take long to hand out huge pages, so where it is able to move memory that is in use, arrays lie in small pages at
first. Where the system has no such pages the arrays are NumPy's own.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

PAGE = 2 << 20
"""Bytes of a huge page, and the least that an array must have for any."""

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Where Linux says whether it gives out huge pages: always, if they are asked for, or never."""

_LINE = 16  # numbers of 4 bytes in a line of the cache
_COLLAPSE = 25  # of madvise, from Linux 6.1 on; Python's mmap doesn't name it


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of zeros that begins where a huge page may, if it is as large as one.

    It lies in huge pages from the beginning where the system is not able to `move` it later. Its last part, which fills
    no page of 2 MB, lies in small pages, so that no memory is lost. The memory goes back to the system with the array
    and all views of it.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(shape, kind)
    memory = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if not can_move():
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % PAGE
    return whole[start : start + size].view(kind).reshape(shape)


Empty: TypeAlias = Callable[[tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]
"""Returns an array of a shape and a type to write into, as `empty` does; what is in it before doesn't matter."""


def copy(array: Any, empty: Empty = empty) -> npt.NDArray[Any]:
    """Return a copy of an array or a view, row by row, where huge pages fit if it is large enough.

    Args:
        array: the array.
        empty: gives out the copy's memory.
    """
    source = np.asarray(array)
    copied = empty(source.shape, source.dtype)
    copy_to(copied, source)
    return copied


def copy_to(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Copy an array or a view into one of the same shape, whose rows lie one after another."""
    if source.ndim < 2 or source.strides[-1] <= source.strides[-2]:
        np.copyto(target, source)
        return
    # A transposed view: NumPy's copy of it by whole rows reads a line of the cache for each number.
    for first in range(0, source.shape[-1], _LINE):
        block = (..., slice(first, first + _LINE))
        target[block] = source[block]


def contiguous(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array whose rows lie one after another: itself, or a copy."""
    return array if array.flags.c_contiguous else copy(array)


@cache
def can_move() -> bool:
    """Return whether this system is able to `move` memory, and may."""
    try:
        is_allowed = "[never]" not in SETTING.read_text(encoding="utf-8")
    except OSError:
        return False
    madvise = _madvise()
    # An advice that a kernel doesn't know is refused for any memory, also for none of it.
    return is_allowed and madvise is not None and madvise(0, 0, _COLLAPSE) == 0


def move(address: int, size: int, *, edges: bool = False) -> bool:
    """Move memory that is in use into huge pages, as far as it fills them; its address and content stay.

    Nothing else of the process waits but who writes or first reads a page that is being moved, and at most one page
    more than before is taken from the system. What is no longer the process's, or can't be moved, stays as it is.

    Args:
        address: of the first byte.
        size: bytes.
        edges: whether the pages that it shares with what lies before and after are moved too, where that is possible.

    Returns:
        Whether all that it fills lies in huge pages now.
    """
    first, last = -(-address // PAGE) * PAGE, (address + size) // PAGE * PAGE
    madvise = _madvise()
    if madvise is None or not can_move():
        return False
    if edges:
        for page in {address // PAGE * PAGE, (address + size - 1) // PAGE * PAGE}:
            madvise(page, PAGE, _COLLAPSE)
    return all(madvise(page, PAGE, _COLLAPSE) == 0 for page in range(first, last, PAGE))


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Any = ctypes.CDLL(None).madvise
    except (AttributeError, OSError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found  # type: ignore[no-any-return]
