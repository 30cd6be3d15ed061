"""`Hub`: any KerasHub causal model, by preset name, hub address or local directory, becomes a `LanguageModel`."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kerasgen import locations
from kerasgen.errors import ModelArgumentError, ModelFormatError, ModelUnavailableError
from kerasgen.files import placing, presence
from kerasgen.models.base import LanguageModel, ModelSource

HUGGING_FACE = "hf://"
KAGGLE = "kaggle://"

_HUGGING_FACE_FORM = re.compile(r"hf://[\w.-]+(/[\w.-]+)?")
_KAGGLE_FORM = re.compile(r"kaggle://[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(/\d+)?")
_NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def is_path(text: str) -> bool:
    """Whether the text is written as a path (`./poet`, `~/poet`, `models/poet`) rather than as a name."""
    if "://" in text:
        return False
    separators = {"/", os.sep, *([os.altsep] if os.altsep else [])}
    return text in (".", "..", "~") or any(separator in text for separator in separators)


def check_directory(directory: Path) -> None:
    """Check that a directory holds a model, as far as its file names tell.

    Raises:
        ModelUnavailableError: there is no such directory.
        ModelFormatError: it holds something else.
    """
    with contextlib.suppress(OSError):  # what can't be finished is told as what it is
        placing.recover(directory.absolute())
    place = locations.look(directory)
    if not presence.is_dir(directory):
        raise ModelUnavailableError(
            f"There is no model directory at {str(directory)!r}"
            + (": it is a file. " if presence.exists(directory) else ". ")
            + f"{place} Give the directory that holds a model's 'config.json'."
        )
    if not (directory / locations.CONFIG_FILE).is_file():
        if (directory / locations.PEFT_FILE).is_file():
            raise ModelFormatError(
                f"{str(directory)!r} holds adapters of peft ({locations.PEFT_FILE!r}), which kerasgen does not read, "
                "and no model. Merge them with peft's `model.merge_and_unload()`, and save that model."
            )
        raise ModelFormatError(
            f"{str(directory)!r} holds no 'config.json', so it is neither a KerasHub preset nor a transformers-format "
            f"model. {place}"
        )


@dataclass(frozen=True)
class Hub(ModelSource):
    """Bring a KerasHub model with its tokenizer, from a hub or from a directory.

    Construction checks how `preset` is written; files and networks are touched by `load`.

    Args:
        preset: a KerasHub preset name (`gpt2_base_en`), `hf://organisation/model`,
            `kaggle://organisation/model/framework/variation`, or the path of a directory that holds a KerasHub preset
            or a transformers-format model (`config.json` with safetensors weights).

    Raises:
        ModelArgumentError: `preset` is empty or has none of these forms.
    """

    preset: str

    def __post_init__(self) -> None:
        if isinstance(self.preset, Path):
            object.__setattr__(self, "preset", _path_text(self.preset))
        if not isinstance(self.preset, str) or not self.preset.strip():
            raise ModelArgumentError(f"`preset` must be a preset name or a path. Received: {self.preset!r}.")
        text = self.preset
        if text.startswith(HUGGING_FACE):
            if not _HUGGING_FACE_FORM.fullmatch(text):
                raise ModelArgumentError(
                    f"A Hugging Face preset is written 'hf://organisation/model'. Received: {text!r}."
                )
        elif text.startswith(KAGGLE):
            if not _KAGGLE_FORM.fullmatch(text):
                raise ModelArgumentError(
                    "A Kaggle preset is written 'kaggle://organisation/model/framework/variation', with '/version' "
                    f"after it if you like. Received: {text!r}."
                )
        elif "://" in text:
            raise ModelArgumentError(
                f"Models come from 'hf://…', 'kaggle://…', a preset name or a directory. Received: {text!r}."
            )
        elif not is_path(text) and not _NAME_FORM.fullmatch(text) and not Path(text).is_dir():
            raise ModelArgumentError(
                f"{text!r} is neither a preset name (letters, digits, '_', '-', '.') nor a directory. Write a path "
                "with its folder, such as './poet'."
            )

    def __str__(self) -> str:
        return self.preset

    def check(self) -> None:
        """Look at the directory, if `preset` is the path of one."""
        if is_path(self.preset):
            check_directory(Path(self.preset).expanduser())

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
        if not is_path(self.preset):
            return None
        directory = Path(self.preset).expanduser()
        with contextlib.suppress(OSError):  # told by `load`
            placing.recover(directory.absolute())
        return directory if presence.is_dir(directory) else None


def _path_text(path: Path) -> str:
    text = str(path)
    return text if is_path(text) else f".{os.sep}{text}"
