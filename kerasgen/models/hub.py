"""`Hub`: any KerasHub causal model, by preset name, hub address or local directory, becomes a `LanguageModel`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelArgumentError
from kerasgen.files import presence, staging
from kerasgen.models import addresses
from kerasgen.models.base import LanguageModel, ModelSource


@dataclass(frozen=True)
class Hub(ModelSource):
    """Bring a KerasHub model with its tokenizer, from a hub or from a directory.

    Construction checks how `preset` is written; files and networks are touched by `load`.

    Args:
        preset: a KerasHub preset name (`gpt2_base_en`), `hf://organisation/model` with `@revision` after it if you
            like, `kaggle://organisation/model/framework/variation`, or the path of a directory that holds a KerasHub
            preset or a transformers-format model (`config.json` with safetensors weights). A repository of the Hugging
            Face hub may hold a saved pipeline too, whose model it is then.

    Raises:
        ModelArgumentError: `preset` is empty or has none of these forms.
    """

    preset: str

    def __post_init__(self) -> None:
        if isinstance(self.preset, os.PathLike):
            object.__setattr__(self, "preset", addresses.path_text(self.preset))
        if not isinstance(self.preset, str) or not self.preset.strip():
            raise ModelArgumentError(f"`preset` must be a preset name or a path. Received: {self.preset!r}.")
        addresses.check_form(self.preset)

    def __str__(self) -> str:
        return self.preset

    def about(self) -> Mapping[str, Any]:
        """Return the name of the preset or the repository; nothing of a directory of this machine."""
        if addresses.is_hub_address(self.preset):
            repository = addresses.hub_address(self.preset).repository
            return {"name": repository, "repository": repository}
        is_local = addresses.is_path(self.preset) or Path(self.preset).is_dir()
        return {} if is_local else {"name": f"{self.preset}, a preset of KerasHub"}

    def check(self) -> None:
        """Look at the directory, if `preset` is the path of one."""
        if addresses.is_path(self.preset):
            addresses.check_directory(Path(self.preset).expanduser())

    def load(self) -> LanguageModel:
        """Return the model with float32 weights and its tokenizer.

        Raises:
            ModelUnavailableError: the hub can't be reached or has no such preset, or the directory isn't there.
            ModelFormatError: what is there is no causal language model that can be read.
            UnknownNameError: KerasHub has no preset of this name.
            MissingDependencyError: the preset's tokenizer needs a package that is not installed.
        """
        self.check()
        from kerasgen.models import loading

        return loading.load(self.preset)

    def directory(self) -> Path | None:
        """Return the directory, if `preset` is the path of one."""
        if not addresses.is_path(self.preset):
            return None
        directory = Path(self.preset).expanduser()
        with contextlib.suppress(OSError):  # told by `load`
            staging.recover(directory.absolute())
        return directory if presence.is_dir(directory) else None
