"""Reads arrays from a file of HDF5 weights: plain numbers that lie in the file itself, and no more than it holds.

HDF5 has links to other files, data kept in other files, views of other files, filters that make gigabytes of a few
bytes, and code that is loaded to undo a filter. None of these belongs into weights. `WeightsFile` looks at every object
of a file before a number is read, and is the only one in kerasgen that opens such a file; what Keras's own loader is
given has gone through `check` before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kerasgen.errors import ModelFormatError

MAX_OBJECTS = 1_000_000
MAX_DEPTH = 64
# A compressed file may hold this many times its size in numbers, and always as much as the floor.
MAX_EXPANSION = 20
EXPANSION_FLOOR_BYTES = 1 << 26

# Deflate, shuffle and checksums are built into HDF5, LZF into h5py; for any other filter HDF5 would load a library.
_BUILT_IN_FILTERS = (1, 2, 3, 32000)


class Dataset(NamedTuple):
    """A dataset that was looked at and found plain.

    Args:
        shape: the shape of its numbers.
        is_plain: float16 or float32, little-endian, in one piece: nothing else is needed to read it.
        handle: h5py's.
        offset: the offset of its first byte in the file, if it is in one piece and not empty.
        size_bytes: the size of its numbers in bytes.
    """

    shape: tuple[int, ...]
    is_plain: bool
    handle: Any
    offset: int | None
    size_bytes: int


class WeightsFile:
    """An open file, of which every object has been looked at.

    Args:
        path: the path of the file.

    Raises:
        ModelFormatError: it is no HDF5 file, is damaged, or holds something else than plain numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as stack:
            self.datasets: Mapping[str, Dataset] = self._open(stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return a dataset as float32.

        Args:
            name: its path in the file, such as `"layers/dense/vars/0"`.
            shape: the shape that it must have. Nothing is allocated for a dataset of another one.

        Raises:
            ModelFormatError: there is no such dataset, or it has another shape or isn't float16 or float32.
        """
        dataset = self.datasets.get(name)
        if dataset is None:
            raise self._error(f"it holds no {name!r}")
        if dataset.shape != shape:
            raise self._error(f"{name!r} has the shape {dataset.shape}, where {shape} fits the configuration")
        if not dataset.is_plain:
            raise self._error(f"the numbers of {name!r} are neither float16 nor float32 in one piece")
        import h5py

        numbers = np.empty(shape, dataset.handle.dtype)
        if numbers.size:
            try:
                dataset.handle.read(h5py.h5s.ALL, h5py.h5s.ALL, numbers)
            except (OSError, RuntimeError, ValueError, TypeError) as cause:
                raise self._error(f"{name!r} can't be read ({cause})") from cause
        return numbers.astype(np.float32, copy=False)

    def _open(self, stack: ExitStack) -> dict[str, Dataset]:
        try:
            if not self.path.is_file():  # a pipe would be waited for, a device has no end
                raise self._error("it is no regular file")
            import h5py

            file = stack.enter_context(h5py.File(self.path, "r"))
            return self._look_through(h5py, file.id, self.path.stat().st_size)
        except ModelFormatError:
            raise
        # Whatever h5py makes of a damaged file: it has no error of its own.
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, NotImplementedError) as cause:
            raise self._error(f"it is damaged, or no HDF5 file ({cause})") from cause

    def _look_through(self, h5py: Any, root: Any, size_bytes: int) -> dict[str, Dataset]:
        datasets: dict[str, Dataset] = {}
        seen: dict[int, str] = {}  # what begins at an address
        waiting: list[tuple[str, Any]] = [("", h5py.h5g.open(root, b"/"))]
        while waiting:
            folder, group = waiting.pop()
            for raw in group:
                name = f"{folder}{raw.decode('utf-8', 'backslashreplace')}"
                if group.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                    raise self._error(f"{name!r} is a link to elsewhere, which is not followed")
                member = h5py.h5o.open(group, raw)
                address = int(h5py.h5o.get_info(member).addr)
                if address in seen:
                    raise self._error(f"{name!r} is there under two names")
                seen[address] = name
                if len(seen) > MAX_OBJECTS or name.count("/") > MAX_DEPTH:
                    raise self._error(f"it holds more than {MAX_OBJECTS:,} objects, or folders {MAX_DEPTH} deep")
                if isinstance(member, h5py.h5d.DatasetID):
                    datasets[name] = self._look_at(h5py, member, name, size_bytes)
                elif isinstance(member, h5py.h5g.GroupID):
                    waiting.append((f"{name}/", member))
                else:
                    raise self._error(f"{name!r} is neither a group nor a dataset")
        self._check_places(datasets, seen, size_bytes)
        return datasets

    def _look_at(self, h5py: Any, dataset: Any, name: str, size_bytes: int) -> Dataset:
        made = dataset.get_create_plist()
        layout, filters = made.get_layout(), [made.get_filter(n)[0] for n in range(made.get_nfilters())]
        if made.get_external_count():
            raise self._error(f"the numbers of {name!r} lie in another file, which is not read")
        if layout == h5py.h5d.VIRTUAL:
            raise self._error(f"{name!r} is a view of other datasets, which is not followed")
        foreign = [code for code in filters if code not in _BUILT_IN_FILTERS]
        if foreign:
            raise self._error(f"{name!r} is stored with the filter {foreign[0]}, for which HDF5 would load a library")
        kind = dataset.get_type()
        if kind.get_class() not in (
            h5py.h5t.INTEGER,
            h5py.h5t.FLOAT,
            h5py.h5t.ENUM,  # how h5py writes a bool
            h5py.h5t.OPAQUE,  # how it writes bfloat16
        ) and not (kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str()):
            raise self._error(f"{name!r} holds no numbers but objects or references")
        shape = tuple(int(length) for length in dataset.shape)
        declared = math.prod(shape) * int(kind.get_size())
        offset = None
        if layout == h5py.h5d.CONTIGUOUS and declared:
            offset = dataset.get_offset()
            if offset is None or offset + declared > size_bytes or dataset.get_storage_size() != declared:
                raise self._error(f"{name!r} needs {declared:,} bytes, and they are not there")
        is_plain = layout == h5py.h5d.CONTIGUOUS and (
            kind.equal(h5py.h5t.IEEE_F32LE) or kind.equal(h5py.h5t.IEEE_F16LE)
        )
        return Dataset(shape, is_plain, dataset, offset, declared)

    def _check_places(self, datasets: Mapping[str, Dataset], objects: Mapping[int, str], size_bytes: int) -> None:
        """Check that datasets overlap neither each other nor other objects, and don't expand the file much."""
        places = [
            (dataset.offset, dataset.size_bytes, name)
            for name, dataset in datasets.items()
            if dataset.offset is not None
        ]
        end, before = 0, ""
        for offset, length, name in sorted([*places, *((address, 1, name) for address, name in objects.items())]):
            if offset < end:
                raise self._error(f"{before!r} and {name!r} lie in one place")
            end, before = offset + length, name
        declared = sum(dataset.size_bytes for dataset in datasets.values())
        if declared > max(EXPANSION_FLOOR_BYTES, MAX_EXPANSION * size_bytes):
            raise self._error(
                f"its {size_bytes:,} bytes say that they hold {declared:,}, more than {MAX_EXPANSION} times as many. "
                "If it is a friend's, store it uncompressed"
            )

    def _error(self, what: str) -> ModelFormatError:
        return ModelFormatError(f"The weights file {str(self.path)!r} can't be taken: {what}.")


def check(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every dataset of a file by its path in it, if another reader may be given the file.

    Raises:
        ModelFormatError: it is damaged, or holds something else than numbers of its own.
    """
    with WeightsFile(path) as file:
        return {name: dataset.shape for name, dataset in file.datasets.items()}
