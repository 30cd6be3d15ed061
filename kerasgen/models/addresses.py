"""Parse a model's address: a preset's name, a hub's address or a directory's path."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from kerasgen import locations
from kerasgen.errors import ModelArgumentError, ModelFormatError, ModelUnavailableError
from kerasgen.files import presence, staging

HUGGING_FACE = "hf://"
KAGGLE = "kaggle://"
SAVED_MODEL = "model"
"""The folder of a saved pipeline that holds its model."""

_HUB_FORM = re.compile(
    r"hf://(?:([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(.*))?|([^/@]+)(?:@([^/@]+))?)", re.DOTALL
)
_HUB_NAME = re.compile(r"(?!\.)(?!-)(?!.*(--|\.\.))[\w.-]{1,96}(?<![.-])(?<!\.git)", re.ASCII)
_HUB_REVISION = re.compile(r"(?!-)(?!.*(\.\.|//|@\{))[^\s~^:?*\[\\\x00-\x20\x7f]+(?<![./])")
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


class HubAddress(NamedTuple):
    """An address on the Hugging Face hub: `hf://organisation/name@revision/path`.

    Args:
        repository: `organisation/name`, or one of the old names without an organisation.
        revision: a branch, a tag or a commit; None for the branch `main`.
        path: of a file or folder in the repository; empty for all of it.
    """

    repository: str
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{quote(self.revision, safe='')}"
        return f"{HUGGING_FACE}{self.repository}{revision}{'/' if self.path else ''}{self.path}"


def is_hub_address(value: object) -> bool:
    """Return whether a value is text that is written as an address on the Hugging Face hub."""
    return isinstance(value, str) and value.strip().startswith(HUGGING_FACE)


def hub_address(text: str) -> HubAddress:
    """Return the parts of `hf://organisation/name@revision/path`.

    Args:
        text: as a person writes it; a `/` in a revision is written `%2F`, but in `refs/pr/1`.

    Raises:
        ModelArgumentError: it has not this form, or its path leaves the repository.
    """
    found = _HUB_FORM.fullmatch(text.strip())
    parts = ("", None, "") if found is None else (found[1] or found[4], found[2] or found[5], found[3] or "")
    repository, revision, path = parts[0], parts[1] and unquote(parts[1]), parts[2].removesuffix("/")
    is_fit = (
        all(map(_HUB_NAME.fullmatch, repository.split("/")))
        and (revision is None or _HUB_REVISION.fullmatch(revision) is not None)
        and (not path or is_inside(path))
    )
    if not is_fit:
        raise ModelArgumentError(
            "An address on the Hugging Face hub is written 'hf://organisation/name', with '@revision' and the path of "
            f"a file after it if you like. Received: {text!r:.200}."
        )
    return HubAddress(repository, revision, path)


def is_inside(path: str) -> bool:
    """Return whether a path of a repository, with `/` between its parts, stays in it on every system."""
    has_foreign = any(character in "\\:" or not character.isprintable() for character in path)
    return not has_foreign and all(part and set(part) != {"."} for part in path.split("/"))


def hub_file(text: str) -> HubAddress | None:
    """Return the parts of an address `hf://organisation/model/file.gguf`; None for another text."""
    try:
        address = hub_address(text)
    except ModelArgumentError:
        return None
    return address if is_gguf(address.path) and "/" in address.repository else None


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
        text: a preset name, `hf://organisation/model@revision`, `kaggle://…`, or a directory.

    Raises:
        ModelArgumentError: it has none of these forms.
    """
    if text.startswith(HUGGING_FACE):
        try:
            is_whole = not hub_address(text).path
        except ModelArgumentError:
            is_whole = False
        if not is_whole:
            raise ModelArgumentError(
                "A model of the Hugging Face hub is written 'hf://organisation/model', with '@revision' after it if "
                f"you like. Received: {text!r}."
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


def path_text(path: os.PathLike[str]) -> str:
    """Return a path as `is_path` knows it for one."""
    text = os.fspath(path)
    return text if is_path(text) else f".{os.sep}{text}"
