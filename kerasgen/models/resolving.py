"""Converts a `model` argument to a `ModelSource`, without loading anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kerasgen import locations
from kerasgen.errors import ModelArgumentError
from kerasgen.files.path_arguments import path_argument
from kerasgen.models import REGISTRY, live, preset_names
from kerasgen.models.addresses import HUGGING_FACE, KAGGLE, is_gguf, is_path
from kerasgen.models.base import ModelSource
from kerasgen.models.gguf import Gguf
from kerasgen.models.hub import Hub


def resolve(value: Any) -> ModelSource:
    """Return the source that `value` stands for.

    Text is read in this order: `hf://…` and `kaggle://…`; a registered name, alone or as `name:key=value,…`; a path or
    a KerasHub preset name, both through `Hub`. What ends with `.gguf` is a file of llama.cpp's format, unless a
    directory has that name. To mean a directory that has a registered name, write `./name`.

    Args:
        value: a `ModelSource` (returned as it is), a `keras_hub.models.CausalLM`, such a text, or an `os.PathLike`.

    Raises:
        ModelArgumentError: it is none of these, or an argument is unknown or out of range.
        UnknownNameError: nobody has registered the name before the `:`, or KerasHub has no preset of this name.
    """
    if isinstance(value, ModelSource):
        return value
    if live.is_keras(value):
        return live.Live(value)
    if isinstance(value, os.PathLike):
        path = path_argument(value, ModelArgumentError, name="model")
        if is_gguf(path.name) and not path.is_dir():
            return Gguf(value)  # type: ignore[arg-type]
        return Hub(value)  # type: ignore[arg-type]  # it is written as a path, so that it can't be a preset's name
    if not isinstance(value, str):
        raise ModelArgumentError(
            "`model` must be 'starter', 'smollm2', a KerasHub preset name, 'hf://…', 'kaggle://…', a directory, a "
            "GGUF file, a keras_hub.models.CausalLM, or a ModelSource. "
            f"Received: {value!r} of type {type(value).__name__}."
        )
    text = value.strip()
    if not text:
        raise ModelArgumentError("`model` is empty. Write 'starter', a KerasHub preset name, or a directory.")
    name, _, _ = text.partition(":")
    is_spec = name.strip() in REGISTRY.names() and ":" in text
    if is_gguf(text) and not is_spec and not Path(text).expanduser().is_dir():
        return Gguf(text)
    if text.startswith((HUGGING_FACE, KAGGLE)) or "://" in text:
        return Hub(text)
    if name.strip() in REGISTRY.names():
        return REGISTRY.create(text)
    if is_path(text) or Path(text).is_dir():
        return Hub(text)
    if ":" in text:
        return REGISTRY.create(text)
    if Path(text).is_file():
        raise ModelArgumentError(
            f"A model is a directory, a GGUF file (which ends with '.gguf') or a preset's name. {locations.look(text)}"
        )
    source = Hub(text)
    if preset_names.known() and text not in preset_names.known():
        raise preset_names.unknown(text)
    return source
