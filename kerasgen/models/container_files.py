"""Writes and reads a `Container` model's directory: a description, safetensors and the tokenizer's files.

The form is kerasgen's own, for KerasHub has none for these models. `config.json` holds the description as
`kerasgen.decoder.config_json` writes it; `model.safetensors` the weights by the names of `kerasgen.decoder.weights`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from kerasgen.decoder import config_json
from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ModelError, ModelFormatError
from kerasgen.models import integrity
from kerasgen.models.base import CONTEXT_LENGTH, LanguageModel
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer

FORMAT: Final = "kerasgen.decoder"
VERSION: Final = 1
CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
TOKENIZER: Final = "assets/tokenizer"
_TOKENIZERS: Final[dict[Any, Any]] = {"ByteLevelBPE": ByteLevelBPE, "PretrainedTokenizer": PretrainedTokenizer}


def is_ours(config: Any) -> bool:
    """Return whether a `config.json` is of this form."""
    return isinstance(config, Mapping) and config.get("format") == FORMAT


def check(model: LanguageModel) -> None:
    """Raise a ModelError unless the model's tokenizer can be written."""
    if type(model.tokenizer).__name__ not in _TOKENIZERS:
        raise ModelError(
            f"A {type(model.tokenizer).__name__} can't be saved beside a model that KerasHub has no class for. Take a "
            f"{' or a '.join(_TOKENIZERS)}."
        )


def write(model: LanguageModel, directory: Path, dtype: Literal["float32", "float16"] | None) -> None:
    """Write a model into an existing directory.

    Raises:
        ModelError: a weight is beyond float16's largest, or the tokenizer is of a person's own class.
    """
    from safetensors.numpy import save_file

    check(model)
    container = model.container
    tensors = {
        name: np.ascontiguousarray(_stored(name, array, dtype))
        for name, array in decoder_weights.flat(container.read()).items()
    }
    save_file(tensors, str(directory / WEIGHTS_FILE), metadata={"format": "np"})
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": config_json.to_json(container.config),
        "context_length": model.metadata.get(CONTEXT_LENGTH, container.context_length),
        "hub_reason": model.hub_reason,
        "tokenizer": type(model.tokenizer).__name__,
    }
    _write_json(directory / CONFIG_FILE, content)
    _write_json(directory / integrity.METADATA_FILE, {})
    folder = directory / TOKENIZER
    folder.mkdir(parents=True)
    model.tokenizer.save(folder)


def load(directory: Path, config: Any, *, source: str, metadata: Mapping[str, Any]) -> LanguageModel:
    """Return the model that `write` left in a directory.

    Args:
        directory: holds its files.
        config: what its `config.json` says.
        source: how to ask for the model again.
        metadata: what else is known about it.

    Raises:
        ModelFormatError: a file is missing or damaged, or they don't belong together.
        TokenizerError: the tokenizer can't be read.
    """
    described, tokenizer = read_description(directory, config)
    weights = read_weights(directory, described)
    from kerasgen.models.container import Container

    container = Container(described, context_length=config.get("context_length"))
    container.assign(weights)
    known = {} if container.context_length is None else {CONTEXT_LENGTH: container.context_length}
    return LanguageModel(
        causal_lm=None,
        tokenizer=tokenizer,
        source=source,
        metadata={**known, **metadata},
        container=container,
        hub_reason=str(config.get("hub_reason", "")),
    )


def read_description(directory: Path, config: Any) -> tuple[DecoderConfig, Tokenizer]:
    """Return what a directory's `config.json` describes, and its tokenizer; no weights are read.

    Raises:
        ModelFormatError: it is damaged, or of another version.
    """
    if config.get("version") != VERSION:
        raise ModelFormatError(
            f"The model in {str(directory)!r} is of version {config.get('version')!r} of its format, and this "
            f"version of kerasgen reads {VERSION}. Update kerasgen."
        )
    kind = _TOKENIZERS.get(config.get("tokenizer"))
    if kind is None:
        raise ModelFormatError(
            f"The model in {str(directory)!r} has a tokenizer of an unknown kind. Received: "
            f"{config.get('tokenizer')!r}."
        )
    described = config_json.from_json(config.get("config"))
    tokenizer: Tokenizer = kind.from_directory(directory / TOKENIZER)
    if tokenizer.vocabulary_size > described.vocabulary_size:
        raise ModelFormatError(
            f"The tokenizer in {str(directory)!r} has {tokenizer.vocabulary_size} ids and the model only "
            f"{described.vocabulary_size}: they don't belong together."
        )
    return described, tokenizer


def read_weights(directory: Path, config: DecoderConfig) -> Weights:
    """Return the weights in a directory, float32.

    Raises:
        ModelFormatError: they are not those that the description implies, or can't be read.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / WEIGHTS_FILE
    wanted = decoder_weights.shapes(config)
    try:
        with safe_open(str(path), framework="np") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if there != wanted:
                name = min(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
                raise ModelFormatError(
                    f"{str(path)!r} belongs to another model than the config.json beside it: {name} has the shape "
                    f"{there.get(name)} there, and {wanted.get(name)} by the description."
                )
            return decoder_weights.build(config, lambda name, shape: file.get_tensor(name).astype(np.float32))
    except (OSError, SafetensorError) as cause:
        raise ModelFormatError(f"{str(path)!r} can't be read: {cause}. Save or copy the model again.") from cause


def _stored(name: str, array: Any, dtype: str | None) -> Any:
    if dtype != "float16":
        return array
    largest = float(np.finfo(np.float16).max)
    if np.abs(array).max(initial=0.0) > largest:
        raise ModelError(
            f"The weight {name!r} holds values beyond float16's largest, {largest:.0f}. Save it with dtype=None."
        )
    return array.astype(np.float16)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
