"""`Gguf`: a model in one file of llama.cpp's format, on this machine or on the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen import locations
from kerasgen.errors import ModelArgumentError, ModelUnavailableError
from kerasgen.files import presence
from kerasgen.models import addresses
from kerasgen.models.base import LanguageModel, ModelSource


@dataclass(frozen=True)
class Gguf(ModelSource):
    """Bring a model of llama.cpp's file format with the tokenizer that the file holds.

    Construction checks how `file` is written; files and networks are touched by `load`. Weights that are stored in
    fewer bits, such as Q4_K, become float32.

    Args:
        file: a path, or `hf://organisation/model/file.gguf`, with `@revision` after the model if you like.

    Raises:
        ModelArgumentError: `file` is empty or has none of these forms.
    """

    file: str

    def __post_init__(self) -> None:
        if isinstance(self.file, os.PathLike):
            object.__setattr__(self, "file", os.fspath(self.file))
        if not isinstance(self.file, str) or not self.file.strip():
            raise ModelArgumentError(f"`file` must be the path of a GGUF file, or 'hf://…'. Received: {self.file!r}.")
        if "://" in self.file and addresses.hub_file(self.file) is None:
            raise ModelArgumentError(
                "A GGUF file on the Hugging Face hub is written 'hf://organisation/model/file.gguf'. Received: "
                f"{self.file!r}."
            )

    def __str__(self) -> str:
        return self.file

    def about(self) -> Mapping[str, Any]:
        """Return the name of the repository; nothing of a file of this machine."""
        place = addresses.hub_file(self.file)
        return {} if place is None else {"name": str(place), "repository": place.repository}

    def check(self) -> None:
        """Look whether there is such a file, if `file` is a path.

        Raises:
            ModelUnavailableError: there is not.
        """
        if "://" not in self.file:
            check_file(Path(self.file).expanduser())

    def gguf_file(self) -> Path | None:
        """Return the file, if `file` is a path and there is one."""
        path = Path(self.file).expanduser()
        return path if "://" not in self.file and presence.is_file(path) else None

    def load(self) -> LanguageModel:
        """Return the model with float32 weights and the file's tokenizer.

        Raises:
            ModelUnavailableError: the hub can't be reached or has no such file, or there is none at the path.
            ModelFormatError: the file can't be read as a model whose decoder kerasgen describes.
            MissingDependencyError: the package `gguf` is not installed.
        """
        self.check()
        from kerasgen.models import gguf_loading, hugging_face, loading

        place = addresses.hub_file(self.file)
        if place is None:
            path, metadata = Path(self.file).expanduser(), {}
        else:
            path, metadata = hugging_face.file(place), {"hub": hugging_face.HUB}
        return gguf_loading.load(path, source=loading.written("gguf", file=self.file), metadata=metadata)


def check_file(path: Path) -> None:
    """Check that there is a file at a path.

    Raises:
        ModelUnavailableError: there is not.
    """
    if not presence.exists(path) or presence.is_dir(path):
        place = locations.look(path)
        raise ModelUnavailableError(f"There is no GGUF file at {os.fspath(path)!r}. {place}")
