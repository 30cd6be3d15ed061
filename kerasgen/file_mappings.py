"""Lays a copy in pages of 2 MB over a file that this process has mapped into memory.

A file's pages are those of the system's cache, 4 KB each, and can't be moved into huge ones, which a processor reads
faster. So a library that computes from a mapped file gets a copy at the same address. The system replaces the mapping
in one step, and whoever reads meanwhile finds the same bytes before and after it. The copy is this process's own, where
the file's pages were shared with other processes. The file stays as it is.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kerasgen import huge_pages

MAPS = Path("/proc/self/maps")
"""Where Linux lists what a process has mapped."""

_MAYMOVE_FIXED = 3  # of mremap: to a given address, in place of what lies there
_FAILED = ctypes.c_void_p(-1).value


class Mapping(NamedTuple):
    """A part of a file that this process has mapped, for reading alone."""

    address: int
    size: int
    offset: int


def of_file(path: Path) -> set[Mapping]:
    """Return the mappings of a file, for reading alone, that are large enough for a huge page; none off Linux.

    Those of a file that lay there before, and was removed or replaced, are not among them.
    """
    try:
        lines = MAPS.read_bytes().splitlines()
    except OSError:
        return set()
    name = os.fsencode(os.path.realpath(path)).replace(b"\n", b"\\012")  # " (deleted)" follows a removed file's
    found = set()
    for line in lines:
        edges, rights, offset, *_, file = line.split(maxsplit=5)
        first, last = (int(edge, 16) for edge in edges.split(b"-"))
        if file == name and rights.startswith(b"r--") and last - first >= huge_pages.PAGE:
            found.add(Mapping(first, last - first, int(offset, 16)))
    return found


class Copy:
    """What a mapping holds, in huge pages, in memory that no one else uses; `lay_over` puts it in the mapping's place.

    Args:
        mapping: the mapping.
        path: the file. It is read, and not the mapping, which may go meanwhile.

    Raises:
        OSError: the system has no huge pages, or no memory for them, or the file can't be read.
    """

    def __init__(self, mapping: Mapping, path: Path) -> None:
        self._mapping = mapping
        calls = _calls()
        if calls is None or not huge_pages.can_move():
            raise OSError("This system moves nothing into huge pages.")
        self._calls = calls
        size = mapping.size + huge_pages.PAGE
        memory = calls.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if memory in (None, _FAILED):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        # A huge page moves as a whole where it begins at a multiple of its size at both addresses.
        self._address = memory + (mapping.address - memory) % huge_pages.PAGE
        ends = [(memory, self._address), (self._address + mapping.size, memory + size)]
        for first, last in ends:
            if first < last:
                calls.munmap(first, last - first)
        try:
            self._fill(path)
        except OSError:
            self.close()
            raise

    def _fill(self, path: Path) -> None:
        mapping = self._mapping
        content = memoryview((ctypes.c_char * mapping.size).from_address(self._address)).cast("B")
        file = os.open(path, os.O_RDONLY)
        try:
            at, end = 0, min(mapping.size, os.fstat(file).st_size - mapping.offset)
            while at < end:
                read = os.preadv(file, [content[at:end]], mapping.offset + at)
                if not read:
                    raise OSError(f"{path} was cut off while it was read.")
                at += read
        finally:
            os.close(file)
        if not huge_pages.move(self._address, mapping.size):
            raise OSError("The system has no huge pages left.")
        self._calls.mprotect(self._address, mapping.size, mmap.PROT_READ)

    def lay_over(self, path: Path) -> bool:
        """Put the copy in the place of its mapping and return whether it lies there.

        It does not where the file at this path is no longer the one that is mapped. The caller sees to it that nobody
        takes the mapping away meanwhile.
        """
        mapping = self._mapping
        if mapping not in of_file(path):
            return False
        moved = self._calls.mremap(self._address, mapping.size, mapping.size, _MAYMOVE_FIXED, mapping.address)
        if moved != mapping.address:
            return False
        self._address = 0
        return True

    def close(self) -> None:
        """Give the memory back, unless it lies in the mapping's place now."""
        if self._address:
            self._calls.munmap(self._address, self._mapping.size)
            self._address = 0


class _Calls(NamedTuple):
    mmap: Any
    munmap: Any
    mprotect: Any
    mremap: Any


@cache
def _calls() -> _Calls | None:
    """Return the C library's functions, or None where one is missing, as `mremap` is outside Linux."""
    if not sys.platform.startswith("linux") or not hasattr(os, "preadv"):
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        calls = _Calls(library.mmap, library.munmap, library.mprotect, library.mremap)
    except (AttributeError, OSError):
        return None
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    calls.mmap.restype = calls.mremap.restype = address
    calls.mmap.argtypes = [address, size, number, number, number, ctypes.c_long]
    calls.munmap.argtypes = [address, size]
    calls.mprotect.argtypes = [address, size, number]
    calls.mremap.argtypes = [address, size, size, number, address]
    return calls
