"""Copies arrays into the bytes of a safetensors file, in memory that is kept for the next copy.

Training waits for this copy alone: a checkpoint is hashed and written from it while the next steps run. The first
touch of memory costs more than the copy (0.6 of 1.0 s of CPU for 1.5 GB), so `prepare` does it beforehand.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_NAMES: Final = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "uint64": "U64",
    "int32": "I32",
    "uint32": "U32",
    "int16": "I16",
    "uint16": "U16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""The format's names of NumPy's types."""

_BYTES_OF_A_JOB: Final = 1 << 22
_BYTES_IN_CACHE: Final = 1 << 18  # what was just copied is looked at while it is in the cache
_BYTES_FOR_THREADS: Final = 1 << 26
_THREADS: Final = 4  # memory is as fast as it gets


class Snapshot:
    """Memory for one copy of arrays of given shapes, as a safetensors file.

    Args:
        shapes: by name, the dtype and the shape of each array that will be copied.

    Raises:
        TypeError: the format has no name for a dtype.
    """

    def __init__(self, shapes: Mapping[str, tuple[Any, tuple[int, ...]]]) -> None:
        self._shapes = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in shapes.items()}
        unknown = next((dtype for dtype, _ in self._shapes.values() if dtype.name not in _NAMES), None)
        if unknown is not None:
            raise TypeError(f"A safetensors file can't hold NumPy's {unknown}.")
        # The widest numbers first, so that each array begins at a multiple of its numbers' size.
        self._order = sorted(self._shapes, key=lambda name: (-self._shapes[name][0].itemsize, name))
        header, end = {}, 0
        for name in self._order:
            dtype, shape = self._shapes[name]
            begin, end = end, end + dtype.itemsize * prod(shape)
            header[name] = {"dtype": _NAMES[dtype.name], "shape": shape, "data_offsets": [begin, end]}
        written = json.dumps(header, allow_nan=False).encode()
        written += b" " * (-len(written) % 8)
        self._start = 8 + len(written)
        self._memory = mmap.mmap(-1, self._start + end)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._memory[: self._start] = len(written).to_bytes(8, "little") + written

    @property
    def data(self) -> memoryview:
        """The file's bytes, those of the last copy."""
        return memoryview(self._memory)

    def prepare(self) -> None:
        """Touch all of the memory, so that the first copy is as quick as the next ones."""
        bytes_of = np.frombuffer(self._memory, np.uint8)
        for begin in range(self._start, len(bytes_of), _BYTES_OF_A_JOB):
            bytes_of[begin : begin + _BYTES_OF_A_JOB] = 0

    def take(self, arrays: Iterable[tuple[str, NDArray[Any]]]) -> bool:
        """Copy the arrays and return whether all their numbers are finite; the copy before is lost.

        Args:
            arrays: each name that the snapshot has, once, with its array.
        """
        jobs = self._jobs(arrays)
        if len(self._memory) < _BYTES_FOR_THREADS:
            finite = [_copied(*job) for job in jobs]
        else:
            # All are asked for before the first is copied: each question would wait for the threads' turns.
            asked = list(jobs)
            with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
                finite = list(threads.map(lambda job: _copied(*job), asked))
        return all(finite)

    def _jobs(self, arrays: Iterable[tuple[str, NDArray[Any]]]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield pairs of equally long flat arrays, the second to be copied into the first."""
        places, begin = {}, self._start
        for name in self._order:
            dtype, shape = self._shapes[name]
            places[name] = np.frombuffer(self._memory, dtype, prod(shape), begin)
            begin += places[name].nbytes
        for name, array in arrays:
            place = places.pop(name)
            assert (array.dtype, array.shape) == self._shapes[name]
            flat = np.ascontiguousarray(array).reshape(-1)
            step = _BYTES_OF_A_JOB // place.itemsize
            for first in range(0, place.size, step):
                yield place[first : first + step], flat[first : first + step]
        assert not places


def _copied(place: NDArray[Any], array: NDArray[Any]) -> bool:
    """Copy a flat array and return whether all its numbers are finite."""
    step = _BYTES_IN_CACHE // place.itemsize
    finite = True
    for first in range(0, place.size, step):
        part = place[first : first + step]
        np.copyto(part, array[first : first + step])
        finite = finite and (part.dtype.kind != "f" or bool(np.isfinite(part).all()))
    return finite
