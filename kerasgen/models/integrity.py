"""Digests of a preset's files: written with them, and compared before they are read.

Neither HDF5 as Keras writes it nor a vocabulary notices a byte that was flipped: it would be another weight, or
another token, and nobody would know. `metadata.json`, which KerasHub writes into each preset and of which it reads the
versions only, holds the SHA-256 of such files. A preset of KerasHub's own has none, and is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen import limits
from kerasgen.errors import ModelFormatError
from kerasgen.files.digests import sha256_of
from kerasgen.models.base import ADDED_TOKENS, BASE_MODEL, CHAT_TEMPLATE, CONTEXT_LENGTH, SPECIAL_TOKENS

METADATA_FILE = "metadata.json"
KEY = "sha256"
MODEL = "kerasgen_model"
"""The key of what is known of a model beside its weights."""
WEIGHTS_SUFFIXES = (".h5", ".safetensors")


def record(directory: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write the digests of weights and tokenizer into the `metadata.json` of a preset that is being written.

    Args:
        directory: the directory of the preset.
        about: what else is known of the model, as JSON can hold it.
    """
    path = directory / METADATA_FILE
    metadata: dict[str, Any] = limits.read_json(path)
    names = [
        *(path_of_file for suffix in WEIGHTS_SUFFIXES for path_of_file in directory.glob(f"*{suffix}")),
        *(path_of_file for path_of_file in (directory / "assets").rglob("*") if path_of_file.is_file()),
    ]
    metadata[KEY] = {name.relative_to(directory).as_posix(): sha256_of(name) for name in sorted(names)}
    if about:
        metadata[MODEL] = dict(about)
    path.write_text(json.dumps(metadata, indent=4, allow_nan=False) + "\n", encoding="utf-8")


def known(directory: Path) -> dict[str, Any]:
    """Return what `record` wrote of a model; empty where it wrote nothing that can be read."""
    try:
        metadata = limits.read_json(directory / METADATA_FILE)
    except (OSError, ValueError):  # of a damaged file, `check` tells
        return {}
    about = metadata.get(MODEL) if isinstance(metadata, dict) else None
    if not isinstance(about, dict):
        return {}
    kinds = {CONTEXT_LENGTH: int, CHAT_TEMPLATE: str, SPECIAL_TOKENS: dict, ADDED_TOKENS: list, BASE_MODEL: dict}
    held = {name: about[name] for name, kind in kinds.items() if isinstance(about.get(name), kind)}
    names = [*held.get(SPECIAL_TOKENS, {}).values(), *held.get(ADDED_TOKENS, ())]
    if not all(isinstance(name, str) for name in names):
        held = {name: value for name, value in held.items() if name not in (SPECIAL_TOKENS, ADDED_TOKENS)}
    return held


def check(directory: Path, *, weights: bool = True, tokenizer: bool = True) -> None:
    """Compare the files of a preset with the digests that were written with them, if there are any.

    Args:
        directory: the directory of the preset.
        weights: whether to compare files of weights.
        tokenizer: whether to compare the other files.

    Raises:
        ModelFormatError: a file is another one, or missing.
    """
    path = directory / METADATA_FILE
    try:
        metadata = limits.read_json(path)
        digests = metadata.get(KEY, {})
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError, AttributeError) as cause:
        raise ModelFormatError(f"{str(path)!r} can't be read: {cause}. Save or fetch the model again.") from cause
    if not isinstance(digests, Mapping):
        raise ModelFormatError(f"{str(path)!r} names no files under {KEY!r}. Save or fetch the model again.")
    for name, expected in digests.items():
        if not (weights if name.endswith(WEIGHTS_SUFFIXES) else tokenizer):
            continue
        file = directory / name
        # A name is looked up below the directory alone, whoever wrote the list.
        if ".." in Path(name).parts or Path(name).is_absolute() or not file.is_file():
            raise ModelFormatError(
                f"{str(path)!r} names the file {name!r}, which does not lie beside it. Copy the whole directory."
            )
        if sha256_of(file) != expected:
            raise ModelFormatError(
                f"{str(file)!r} is not the file that was saved: its SHA-256 differs from the one in {METADATA_FILE!r}. "
                f"Copy or save the model again. If you changed it yourself, remove {KEY!r} from {METADATA_FILE!r}."
            )
