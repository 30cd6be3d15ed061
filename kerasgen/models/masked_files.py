"""Writes and reads a masked language model in kerasgen's own form, for what KerasHub's classes would compute otherwise.

`config.json` holds the description, `model.safetensors` the weights by the names of `kerasgen.encoder.weights`, and
`assets/tokenizer` the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from kerasgen.encoder import weights
from kerasgen.encoder.config import from_json, to_json
from kerasgen.errors import ModelError, ModelFormatError, TokenizerError
from kerasgen.models import integrity
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.tokens.pretrained import PretrainedTokenizer

FORMAT: Final = "kerasgen.encoder"
VERSION: Final = 1
CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
TOKENIZER: Final = "assets/tokenizer"


def write(model: MaskedLanguageModel, directory: Path, dtype: Literal["float32", "float16"] | None = None) -> None:
    """Write a model into an existing directory.

    Raises:
        ModelError: a weight is beyond float16's largest.
    """
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(_stored(name, array, dtype)) for name, array in model.network.read().items()}
    save_file(tensors, str(directory / WEIGHTS_FILE), metadata={"format": "np"})
    content = {"format": FORMAT, "version": VERSION, "registered_name": FORMAT, "config": to_json(model.network.config)}
    for name, value in ((CONFIG_FILE, content), (integrity.METADATA_FILE, {})):
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (directory / name).write_text(text, encoding="utf-8")
    folder = directory / TOKENIZER
    folder.mkdir(parents=True)
    model.tokenizer.save(folder)


def load(
    directory: Path, config: Mapping[str, Any], *, source: str, metadata: Mapping[str, Any]
) -> MaskedLanguageModel:
    """Return the model that `write` left in a directory.

    Raises:
        ModelFormatError: a file is missing or damaged, or they don't belong together.
    """
    from safetensors import SafetensorError, safe_open

    if config.get("version") != VERSION:
        raise ModelFormatError(
            f"{str(directory / CONFIG_FILE)!r} is of version {config.get('version')!r} of its form, and this kerasgen "
            f"reads {VERSION}. Install a newer kerasgen."
        )
    described = from_json(config.get("config"))
    path, wanted = directory / WEIGHTS_FILE, weights.shapes(described)
    try:
        with safe_open(str(path), framework="np") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if there != wanted:
                name = min(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
                raise ModelFormatError(
                    f"{str(path)!r} belongs to another model than the config.json beside it: {name} has the shape "
                    f"{there.get(name)} there, and {wanted.get(name)} by the description."
                )
            named = {name: file.get_tensor(name).astype(np.float32) for name in wanted}
    except (OSError, SafetensorError) as cause:
        raise ModelFormatError(f"{str(path)!r} can't be read: {cause}. Save or copy the model again.") from cause
    try:
        tokenizer = PretrainedTokenizer.from_directory(directory / TOKENIZER)
    except TokenizerError as cause:
        raise ModelFormatError(f"The tokenizer of {str(directory)!r} can't be used: {cause}") from cause
    from kerasgen.models.encoder_network import EncoderNetwork

    network = EncoderNetwork(described)
    network.assign(named)
    return MaskedLanguageModel(network, tokenizer, source, metadata)


def _stored(name: str, array: Any, dtype: str | None) -> Any:
    if dtype != "float16":
        return array
    largest = float(np.finfo(np.float16).max)
    if np.abs(array).max(initial=0.0) > largest:
        raise ModelError(
            f"The weight {name!r} holds values beyond float16's largest, {largest:.0f}. Save it with dtype=None."
        )
    return array.astype(np.float16)
