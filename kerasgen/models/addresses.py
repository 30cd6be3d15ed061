"""How the address of a model is written: a preset's name, a hub's address or a directory's path."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from kerasgen import locations
from kerasgen.errors import ModelArgumentError, ModelFormatError, ModelUnavailableError
from kerasgen.files import presence, staging

HUGGING_FACE = "hf://"
KAGGLE = "kaggle://"

_HUGGING_FACE_FORM = re.compile(r"hf://[\w.-]+(/[\w.-]+)?")
_HUB_FILE_FORM = re.compile(r"hf://([\w.-]+/[\w.-]+)/((?:[\w.-]+/)*[\w.-]+\.gguf)", re.IGNORECASE)
_KAGGLE_FORM = re.compile(r"kaggle://[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(/\d+)?")
_NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def is_path(text: str) -> bool:
    """Whether the text is written as a path (`./poet`, `~/poet`, `models/poet`) rather than as a name."""
    if "://" in text:
        return False
    separators = {"/", os.sep, *([os.altsep] if os.altsep else [])}
    return text in (".", "..", "~") or any(separator in text for separator in separators)


def is_gguf(text: str) -> bool:
    """Whether the text is written as the path or the hub address of a GGUF file."""
    return text.lower().endswith(".gguf")


def hub_file(text: str) -> tuple[str, str] | None:
    """Return the repository and the file of an address `hf://organisation/model/file.gguf`; None for another text."""
    found = _HUB_FILE_FORM.fullmatch(text)
    if found is None or any(set(part) == {"."} for part in text.split("/")):
        return None
    return found[1], found[2]


def check_directory(directory: Path) -> None:
    """Check that a directory holds a model, as far as its file names tell.

    Raises:
        ModelUnavailableError: there is no such directory.
        ModelFormatError: it holds something else.
    """
    with contextlib.suppress(OSError):  # what can't be finished is told as what it is
        staging.recover(directory.absolute())
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
                f"{str(directory)!r} holds adapters of peft ({locations.PEFT_FILE!r}), and no model. Load the "
                "model that they belong to, and put them on it with Pipeline(…).load_adapter(path)."
            )
        raise ModelFormatError(
            f"{str(directory)!r} holds no 'config.json', so it is neither a KerasHub preset nor a transformers-format "
            f"model. {place}"
        )


def check_form(text: str) -> None:
    """Check how an address is written; nothing but the file system's names is looked at.

    Args:
        text: a preset name, `hf://organisation/model`, `kaggle://…`, or a directory.

    Raises:
        ModelArgumentError: it has none of these forms.
    """
    if text.startswith(HUGGING_FACE):
        if not _HUGGING_FACE_FORM.fullmatch(text):
            raise ModelArgumentError(f"A Hugging Face preset is written 'hf://organisation/model'. Received: {text!r}.")
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


def path_text(path: os.PathLike[str]) -> str:
    """Return a path as `is_path` knows it for one."""
    text = os.fspath(path)
    return text if is_path(text) else f".{os.sep}{text}"
