"""Reads the tensors of a transformers-format model: each once, with the expected shape, and all of them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from kerasgen.errors import ModelFormatError

SAFETENSORS_FILE = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"


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


class Tensors(ExitStack):
    """The tensors of a preset's safetensors files by name, whatever prefix the whole model gave them.

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
        # safetensors returns bfloat16 to NumPy only once this package has taught NumPy the type.
        import ml_dtypes  # noqa: F401
        from keras_hub.src.utils.preset_utils import check_file_exists, get_file
        from safetensors import SafetensorError, safe_open

        self._preset = preset
        self._files: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._read: set[str] = set()
        for name in weight_files(preset):
            try:
                if not check_file_exists(preset, name):
                    raise ModelFormatError(
                        f"The weights file {name!r} of {preset!r} is missing, which {SAFETENSORS_INDEX!r} names. "
                        "Download it."
                    )
                file = self.enter_context(safe_open(get_file(preset, name), framework="np"))
            except SafetensorError as cause:
                self.close()
                raise ModelFormatError(
                    f"The weights file {name!r} of {preset!r} is damaged or no safetensors file: {cause}. "
                    "Download it again."
                ) from cause
            except BaseException:
                self.close()
                raise
            for full in file.keys():  # noqa: SIM118  (a handle, not a dictionary)
                short = next((full[len(p) :] for p in prefixes if full.startswith(p)), full)
                part, _, leaf = short.rpartition(".")
                short = f"{(other_names or {})[part]}.{leaf}" if part in (other_names or {}) else short
                if short in self._files:
                    self.close()
                    raise ModelFormatError(
                        f"The weights of {preset!r} hold {self._names[short]!r} and {full!r} (in {name!r}), which "
                        "would be one tensor. Save the model again."
                    )
                self._files[short] = file
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
        tensor = self._files[name].get_tensor(self._names[name])
        if str(tensor.dtype) not in ("float16", "bfloat16", "float32", "float64"):
            raise ModelFormatError(
                f"The tensor {self._names[name]!r} of {self._preset!r} is stored as {tensor.dtype}: its weights are "
                "quantized, which is not read. Take the model in float16, bfloat16 or float32 that it was made from."
            )
        return tensor

    def take(self, name: str, shape: tuple[int, ...]) -> Any:
        """Return one tensor as float32.

        Raises:
            ModelFormatError: as `get`, or it has another shape.
        """
        import numpy as np

        tensor = self.get(name)
        if tuple(tensor.shape) != shape:
            raise ModelFormatError(
                f"The tensor {self._names[name]!r} of {self._preset!r} has the shape {tuple(tensor.shape)}; its "
                f"'config.json' asks for {shape}."
            )
        return np.asarray(tensor, dtype=np.float32)

    def check_tied(self, head: str, embeddings: Any) -> None:
        """Check that the output head, if there is one, repeats the embeddings, with which KerasHub predicts.

        Raises:
            ModelFormatError: it doesn't.
        """
        import numpy as np

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
