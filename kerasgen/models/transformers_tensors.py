"""Reads the tensors of a transformers-format model: each once, with the expected shape, and all of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from ml_dtypes import bfloat16

from kerasgen.errors import ModelFormatError

SAFETENSORS_FILE = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
_FLOATS: Final[Mapping[str, Any]] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": bfloat16}
_OTHERS: Final = {"I8": "int8", "U8": "uint8", "I16": "int16", "I32": "int32", "U32": "uint32", "I64": "int64"}


class _Stored(NamedTuple):
    """Where a file holds a tensor: its type as safetensors names it, its shape, and the offset of its first byte."""

    kind: str
    shape: tuple[int, ...]
    offset: int


def weight_files(preset: str) -> list[str]:
    """Return the names of the safetensors files that transformers reads: the single one if there is one.

    Raises:
        ModelFormatError: the index is no index.
    """
    from keras_hub.src.utils.preset_utils import check_file_exists, load_json

    if not check_file_exists(preset, SAFETENSORS_INDEX) or check_file_exists(preset, SAFETENSORS_FILE):
        return [SAFETENSORS_FILE]
    index = load_json(preset, SAFETENSORS_INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ModelFormatError(f"The {SAFETENSORS_INDEX!r} of {preset!r} has no 'weight_map' of tensors to files.")
    return sorted(set(places.values()))


def _header(file: BinaryIO) -> dict[str, _Stored]:
    """Return where a safetensors file, which the library has looked through, holds its tensors, by their full names."""
    size = int.from_bytes(file.read(8), "little")
    content = json.loads(file.read(size))
    content.pop("__metadata__", None)
    return {
        name: _Stored(about["dtype"], tuple(about["shape"]), 8 + size + about["data_offsets"][0])
        for name, about in content.items()
    }


class Tensors(ExitStack):
    """The tensors of a preset's safetensors files by name, whatever prefix the whole model gave them.

    They are read and not mapped: the pages of a map count as a second copy of the weights.

    Args:
        preset: a directory or hub address.
        prefixes: taken off a tensor's name, the first one that fits.
        other_names: the other names of parts, and what they are called here.

    Raises:
        ModelFormatError: a file is damaged or missing, or two tensors have one name.
    """

    def __init__(
        self, preset: str, *, prefixes: tuple[str, ...] = (), other_names: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        from keras_hub.src.utils.preset_utils import check_file_exists, get_file
        from safetensors import SafetensorError, safe_open

        self._preset = preset
        self._files: dict[str, BinaryIO] = {}
        self._stored: dict[str, _Stored] = {}
        self._names: dict[str, str] = {}
        self._read: set[str] = set()
        for name in weight_files(preset):
            try:
                if not check_file_exists(preset, name):
                    raise ModelFormatError(
                        f"The weights file {name!r} of {preset!r} is missing, which {SAFETENSORS_INDEX!r} names. "
                        "Download it."
                    )
                path = get_file(preset, name)
                with safe_open(path, framework="np"):  # which says what is wrong with a file
                    pass
                file = self.enter_context(Path(path).open("rb"))  # noqa: SIM115  (closed with the others)
                stored = _header(file)
            except SafetensorError as cause:
                self.close()
                raise ModelFormatError(
                    f"The weights file {name!r} of {preset!r} is damaged or no safetensors file: {cause}. "
                    "Download it again."
                ) from cause
            except BaseException:
                self.close()
                raise
            for full in stored:
                short = next((full[len(p) :] for p in prefixes if full.startswith(p)), full)
                part, _, leaf = short.rpartition(".")
                short = f"{(other_names or {})[part]}.{leaf}" if part in (other_names or {}) else short
                if short in self._files:
                    self.close()
                    raise ModelFormatError(
                        f"The weights of {preset!r} hold {self._names[short]!r} and {full!r} (in {name!r}), which "
                        "would be one tensor. Save the model again."
                    )
                self._files[short], self._stored[short] = file, stored[full]
                self._names[short] = full

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def get(self, name: str) -> Any:
        """Return one tensor as it is stored.

        Raises:
            ModelFormatError: it is missing, or no tensor of floating-point numbers.
        """
        if name not in self._files:
            near = ", ".join(sorted(self._files)[:6])
            raise ModelFormatError(
                f"The weights of {self._preset!r} have no tensor {name!r}. They begin with: {near or 'nothing'}."
            )
        self._read.add(name)
        stored = self._stored[name]
        if stored.kind not in _FLOATS:
            kind = _OTHERS.get(stored.kind, stored.kind)
            raise ModelFormatError(
                f"The tensor {self._names[name]!r} of {self._preset!r} is stored as {kind}: its weights are "
                "quantized, which is not read. Take the model in float16, bfloat16 or float32 that it was made from."
            )
        file = self._files[name]
        file.seek(stored.offset)
        numbers = np.fromfile(file, _FLOATS[stored.kind], math.prod(stored.shape))
        if len(numbers) != math.prod(stored.shape):
            raise ModelFormatError(
                f"The weights of {self._preset!r} were cut while they were read, within {self._names[name]!r}. "
                "Download them again."
            )
        return numbers.reshape(stored.shape)

    def take(self, name: str, shape: tuple[int, ...], *, as_stored: bool = False) -> Any:
        """Return one tensor as float32.

        Args:
            name: of the tensor.
            shape: that it must have.
            as_stored: return float16 and bfloat16 as they are.

        Raises:
            ModelFormatError: as `get`, or it has another shape.
        """
        tensor = self.get(name)
        if tuple(tensor.shape) != shape:
            raise ModelFormatError(
                f"The tensor {self._names[name]!r} of {self._preset!r} has the shape {tuple(tensor.shape)}; its "
                f"'config.json' asks for {shape}."
            )
        return tensor if as_stored and tensor.dtype.itemsize == 2 else tensor.astype(np.float32, copy=False)

    def check_tied(self, head: str, embeddings: Any) -> None:
        """Check that the output head, if there is one, repeats the embeddings, with which KerasHub predicts.

        Raises:
            ModelFormatError: it doesn't.
        """
        if head in self and not np.array_equal(self.take(head, embeddings.shape), embeddings):
            raise ModelFormatError(
                f"The model {self._preset!r} has an output head of its own ({self._names[head]!r} is not its "
                "embeddings); KerasHub's layers predict with the embeddings. It can't be read without changing what "
                "it says."
            )

    def check_all_read(self, *, besides: Iterable[str] = (), later: Container[str] = ()) -> None:
        """Check that no tensor was left.

        Args:
            besides: regular expressions of names that change nothing.
            later: names of tensors that will be read.

        Raises:
            ModelFormatError: one was, which it names.
        """
        left = sorted(
            full
            for name, full in self._names.items()
            if name not in self._read
            and name not in later
            and not any(re.fullmatch(pattern, name) for pattern in besides)
        )
        if left:
            more = f" and {len(left) - 4} more" if len(left) > 4 else ""
            raise ModelFormatError(
                f"The weights of {self._preset!r} hold what KerasHub's layers have no place for: "
                f"{', '.join(map(repr, left[:4]))}{more}. The model can't be read without changing what it says."
            )
