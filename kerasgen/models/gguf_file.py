"""Reads a GGUF file: its metadata by key, and its tensors, each from the disk when it is asked for.

A file comes from a stranger: every length in it is held against the bytes that are left before anything is made of it.
Tensors are read and not mapped, for the pages of a map would count as a second copy, and a file that is cut meanwhile
would end the process.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16

from kerasgen import limits
from kerasgen.errors import MissingDependencyError, ModelFormatError
from kerasgen.limits import Limits

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS: Final[Mapping[int, str]] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_ALIGNMENT: Final = "general.alignment"
_PLAIN: Final = ("F32", "F16", "F64")
_MOST_DIMENSIONS: Final = 4
_AT_ONCE: Final = 1 << 22
"""Weights that are made of codes at a time: what is between them takes some times their memory."""


@dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor in a file.

    Args:
        name: the name of the tensor.
        kind: its type, as `gguf` names it, such as `"Q8_0"`.
        shape: the shape of the numbers, rows first.
        offset: the offset of its first byte in the file.
        size_bytes: how many bytes it has.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


class GgufFile:
    """An open GGUF file.

    Args:
        path: the path of the file.

    Attributes:
        says: what the file says by key: numbers, texts, lists of texts, and arrays of numbers.
        tensors: by name.

    Raises:
        ModelFormatError: it is no GGUF file, is damaged or cut, or holds a tensor of a type that is not read.
        MissingDependencyError: the package `gguf` is not installed.
        OSError: it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        irregular = limits.kind_of_irregular(path)
        if irregular is not None:
            raise self._error(f"it is {irregular}, and no file")
        self._file: BinaryIO = path.open("rb")
        try:
            self._size = path.stat().st_size
            header = _Header(self._file, self._size)
            self.says: dict[str, Any] = header.says
            self.tensors: dict[str, StoredTensor] = header.tensors
        except (ValueError, struct.error) as cause:
            self._file.close()
            raise self._error(str(cause)) from cause
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, name: str, *, in_half: bool = False) -> npt.NDArray[Any]:
        """Return a tensor as float32, rows first.

        Args:
            name: of the tensor.
            in_half: return matrices in bfloat16, rounded a piece at a time so that no float32 is made of a whole one.

        Raises:
            ModelFormatError: there is none of this name, the file has been cut, or a number is not finite.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            held = ", ".join(sorted(self.tensors)[:6])
            raise self._error(f"it has no tensor {name!r}. Its tensors begin with {held or 'nothing'}")
        self._file.seek(tensor.offset)
        raw = np.fromfile(self._file, np.uint8, tensor.size_bytes)
        if len(raw) != tensor.size_bytes:
            raise self._error(f"it ends within the tensor {name!r}")
        numbers = _decoded_whole(raw, tensor, bfloat16 if in_half and len(tensor.shape) == 2 else np.float32)
        if not np.isfinite(numbers).all():
            raise self._error(f"the tensor {name!r} holds a number that is not finite")
        return numbers

    def _error(self, reason: str) -> ModelFormatError:
        return ModelFormatError(
            f"The GGUF file {str(self.path)!r} can't be read: {reason}. Copy or download it again, or take another."
        )


class _Header:
    """Parser of the header before the tensors' bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        limit = Limits.current().json_bytes
        self._file, self._size, self._at, self._limit = file, size, 0, limit
        magic = self._take(4)
        if magic != _MAGIC:
            raise ValueError(f"it begins with {magic!r} and not with {_MAGIC!r}")
        (version,) = self._unpack("<I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "its numbers are big-endian" if swapped in _VERSIONS else f"it is of version {version}"
            raise ValueError(f"{kind}; little-endian files of the versions 2 and 3 are read")
        num_tensors, num_keys = self._unpack("<QQ")
        self._require(num_keys, 13, "keys")  # a name's length, a type and a byte
        self.says: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._text("a key")
            if key in self.says:
                raise ValueError(f"it says {key!r} twice")
            self.says[key] = self._value(key, *self._unpack("<I"))
        self._require(num_tensors, 32, "tensors")
        places = [self._place() for _ in range(num_tensors)]
        alignment = self.says.get(_ALIGNMENT, 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"its {_ALIGNMENT!r} is {alignment!r}, and no power of two")
        self.tensors = self._laid_out(places, -(-self._at // alignment) * alignment, alignment)

    def _take(self, count: int) -> bytes:
        self._at += count
        if self._at > self._limit:
            advice = limits.advice("json_bytes", self._limit)
            raise ValueError(f"its header is longer than {self._limit:,} bytes. {advice}")
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError(f"it is cut: it ends after {self._size:,} bytes, before its tensors")
        return data

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def _require(self, count: int, least_bytes: int, what: str) -> None:
        """Check a number of things against what is left of the file before any of them is read."""
        if count * least_bytes > self._size - self._at:
            raise ValueError(f"it is cut or damaged: it announces {count:,} {what}, and has {self._size:,} bytes")

    def _text(self, what: str) -> str:
        (length,) = self._unpack("<Q")
        self._require(length, 1, f"bytes of {what}")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as cause:
            raise ValueError(f"{what} is no UTF-8") from cause

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._text(f"the value of {key!r}")
        if kind == _ARRAY:
            return self._array(key)
        return self._numbers(key, kind, 1)[0].item()

    def _array(self, key: str) -> Any:
        kind, length = self._unpack("<IQ")
        if kind == _STRING:
            self._require(length, 8, f"texts under {key!r}")
            what = f"a text of {key!r}"
            return [self._text(what) for _ in range(length)]
        return self._numbers(key, kind, length)

    def _numbers(self, key: str, kind: int, length: int) -> npt.NDArray[Any]:
        if kind not in _NUMBERS:
            raise ValueError(f"the value of {key!r} is of the unknown type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        self._require(length, dtype.itemsize, f"numbers under {key!r}")
        return np.frombuffer(self._take(length * dtype.itemsize), dtype)

    def _place(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, its shape, its type's number and its offset behind the header."""
        name = self._text("a tensor's name")
        (dimensions,) = self._unpack("<I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"the tensor {name!r} has {dimensions} dimensions")
        shape = self._unpack(f"<{dimensions}Q")
        return name, tuple(reversed(shape)), *self._unpack("<IQ")

    def _laid_out(self, places: list[Any], start: int, alignment: int) -> dict[str, StoredTensor]:
        by_name: dict[str, StoredTensor] = {}
        for name, shape, number, offset in places:
            kind, size = _size_bytes(name, shape, number)
            if name in by_name:
                raise ValueError(f"it holds the tensor {name!r} twice")
            if offset % alignment or start + offset + size > self._size:
                raise ValueError(f"it is cut or damaged: the tensor {name!r} does not lie in its {self._size:,} bytes")
            by_name[name] = StoredTensor(name, kind, shape, start + offset, size)
        in_order = sorted(by_name.values(), key=lambda tensor: tensor.offset)
        for first, second in itertools.pairwise(in_order):
            if first.offset + first.size_bytes > second.offset:
                raise ValueError(f"the tensors {first.name!r} and {second.name!r} lie over each other")
        return by_name


def _size_bytes(name: str, shape: tuple[int, ...], number: int) -> tuple[str, int]:
    """Return the type of a tensor and its size in bytes."""
    gguf = _package()
    try:
        kind = gguf.GGMLQuantizationType(number)
    except ValueError:
        raise ValueError(f"the tensor {name!r} is of the unknown type {number}") from None
    if kind.name not in _PLAIN and kind not in gguf.quants._type_traits:
        known = ", ".join(sorted({*_PLAIN, *(each.name for each in gguf.quants._type_traits)}))
        raise ValueError(f"the tensor {name!r} is stored as {kind.name}, and of types {known} are read")
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    if 0 in shape or shape[-1] % block:
        raise ValueError(f"the tensor {name!r} has the shape {shape}, whose rows {kind.name} can't hold")
    count = 1
    for size in shape:
        count *= size
    return kind.name, count // block * block_bytes


def _decoded_whole(raw: npt.NDArray[np.uint8], tensor: StoredTensor, dtype: Any) -> npt.NDArray[Any]:
    plain = {"F32": np.float32, "BF16": bfloat16}.get(tensor.kind)
    if plain is dtype:
        return raw.view(dtype).reshape(tensor.shape)
    numbers = np.empty(tensor.shape, dtype)
    rows = numbers.reshape(-1, tensor.shape[-1])
    stored = raw.reshape(len(rows), -1)
    step = max(1, _AT_ONCE // tensor.shape[-1])
    for start in range(0, len(rows), step):
        rows[start : start + step] = _decoded(stored[start : start + step], tensor.kind)
    return numbers


def _decoded(stored: npt.NDArray[np.uint8], kind: str) -> npt.NDArray[Any]:
    if kind in ("F32", "F64"):
        return stored.view(np.float32 if kind == "F32" else np.float64)
    gguf = _package()
    with np.errstate(all="ignore"):  # of a damaged file; what comes out is looked at
        decoded: npt.NDArray[np.float32] = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[kind])
    return decoded


def _package() -> Any:
    try:
        import gguf
    except ImportError as cause:
        raise MissingDependencyError(
            "Reading a GGUF file needs the package gguf: pip install 'kerasgen[gguf]'.", package="gguf", extra="gguf"
        ) from cause
    return gguf
