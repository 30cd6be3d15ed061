"""Loads a GGUF file as a `LanguageModel`: the file's description and tokenizer, and weights a tensor at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig, LearnedPositions
from kerasgen.decoder.weights import Weights
from kerasgen.errors import KerasgenError, ModelFormatError, TokenizerError
from kerasgen.models import hub_import, quantized_base
from kerasgen.models.architectures import Architecture, gguf_settings, tensors
from kerasgen.models.base import BASE_MODEL, CHAT_TEMPLATE, CONTEXT_LENGTH, SPECIAL_TOKENS, LanguageModel
from kerasgen.models.gguf_file import GgufFile
from kerasgen.models.preprocessing import attach_preprocessor
from kerasgen.tokens.base import Tokenizer

_SPLIT: Final = "split.count"
_TYPE: Final = "general.type"
_TABLE: Final = "token_embd.weight"
_POSITIONS: Final = "position_embd.weight"
_LICENSE: Final = ("license", "license.name", "license.link")
_TOLD: Final = ("name", "organization", *_LICENSE, "languages", "size_label", "finetune", "version")
_FACTORS: Final = (gguf_settings.FREQUENCY_FACTORS, *gguf_settings.LONG_ROPE_FACTORS)
# Computed by a formula, or kept for shape's sake, in older files.
_IGNORED: Final = re.compile(r"blk\.\d+\.(attn_rot_embd|rope_freqs)\.weight|rot_embd\.weight")


def load(path: Path, *, source: str, metadata: Mapping[str, Any] | None = None) -> LanguageModel:
    """Return the model in a GGUF file with its tokenizer, weights float32 or as `quantized_base.loading` says.

    Args:
        path: the path of the file.
        source: how to ask for the model again.
        metadata: what else is known about it.

    Raises:
        ModelUnavailableError: there is no such file.
        ModelFormatError: it can't be read, or holds what the description of its decoder doesn't use.
        MissingDependencyError: the package `gguf` is not installed.
    """
    try:
        with GgufFile(path) as file:
            return _model(file, source=source, metadata=metadata or {})
    except (ValueError, OSError) as cause:
        raise ModelFormatError(f"The GGUF file {str(path)!r} can't be read as a model: {cause}.") from cause
    except TokenizerError as cause:
        raise ModelFormatError(f"The tokenizer in {str(path)!r} can't be used: {cause}") from cause


def decoder(
    path: Path, convert: Callable[[Weights], Weights] = decoder_weights.whole, *, in_half: bool = False
) -> tuple[Tokenizer, DecoderConfig, Weights] | None:
    """Return what a GGUF file holds without Keras, or None where it can't be read, which `load` tells.

    Args:
        path: of the file.
        convert: what the weights, float32 NumPy arrays, become; it is given the layers one at a time, as it iterates
            over them.
        in_half: whether matrices are given to it in bfloat16.

    Returns:
        The tokenizer, the decoder's description, and what its weights were converted to.
    """
    try:
        with GgufFile(path) as file:
            architecture, config = described(file)
            tokenizer = tokenizer_of(file, config)
            config, _ = without_limit(config)
            weights = tensors.read_in_turn(architecture, config, _taking(file, in_half=in_half), "gguf")
            return tokenizer, config, convert(weights)
    except (KerasgenError, ValueError, OSError):
        return None


def described(file: GgufFile) -> tuple[Architecture, DecoderConfig]:
    """Return the architecture of a file's decoder and its description; its tensors are those that it implies.

    Raises:
        ValueError: the file holds something else, more, or less.
    """
    says = file.says
    kind = says.get(_TYPE, "model")
    if kind != "model":
        raise ValueError(f"it holds a {kind!r} ({_TYPE}), and no model")
    if says.get(_SPLIT, 1) not in (0, 1):
        raise ValueError(
            f"it is one of {says[_SPLIT]} files of a model. Merge them with llama.cpp's `llama-gguf-split --merge`"
        )
    architecture = gguf_settings.architecture_of(says)
    table = file.tensors.get(_TABLE)
    if table is None:
        raise ValueError(f"it has no tensor {_TABLE!r}")
    small = {
        name: file.read(name) if name in _FACTORS and math.prod(held.shape) < 1 << 16 else held
        for name, held in file.tensors.items()
    }
    config = gguf_settings.described(architecture, says, small, table.shape[0])
    _check_tensors(file, architecture, config)
    return architecture, config


def _check_tensors(file: GgufFile, architecture: Architecture, config: DecoderConfig) -> None:
    wanted = {tensor.name: tensor.shape for tensor in tensors.tensors(architecture, config, "gguf")}
    for name, shape in wanted.items():
        held = file.tensors.get(name)
        if held is None:
            raise ValueError(f"it has no tensor {name!r}, which its description implies")
        if _without_ones(held.shape) != _without_ones(shape):
            raise ValueError(f"its tensor {name!r} has the shape {held.shape}, and its description implies {shape}")
    used = {*wanted, *_FACTORS}
    left = [name for name in file.tensors if name not in used and not _IGNORED.fullmatch(name)]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise ValueError(
            f"it holds the tensors {', '.join(map(repr, left[:3]))}{more}, which the description of this decoder does "
            "not use: without them, it would be another model"
        )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of one in front, which a file may have or lack: one row is a vector."""
    first = next((n for n, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _model(file: GgufFile, *, source: str, metadata: Mapping[str, Any]) -> LanguageModel:
    architecture, config = described(file)
    tokenizer = tokenizer_of(file, config)
    config, length = without_limit(config)
    network, reason = _network(file, architecture, config, length), architecture.hub_reason(config)
    known = {} if length is None else {CONTEXT_LENGTH: length}
    model = LanguageModel(
        causal_lm=None if reason else network,
        tokenizer=tokenizer,
        source=source,
        metadata={**known, **told(file), **metadata},
        container=network if reason else None,
        hub_reason=reason,
    )
    if not reason:
        attach_preprocessor(model)
    return model


def without_limit(config: DecoderConfig) -> tuple[DecoderConfig, int | None]:
    """Return the description without the file's length where positions have no limit, and that length."""
    if isinstance(config.positions, LearnedPositions):
        return config, None
    return replace(config, max_sequence_length=None), config.max_sequence_length


def told(file: GgufFile) -> dict[str, Any]:
    """Return what a file says of its weights, and its chat template, as a model's metadata."""
    general: dict[str, Any] = {name: file.says[f"general.{name}"] for name in _TOLD if f"general.{name}" in file.says}
    kinds = sorted({tensor.kind for tensor in file.tensors.values()})
    about = {**general, "format": "gguf", "file": file.path.name, "types": kinds}
    template = file.says.get("tokenizer.chat_template")
    if not isinstance(template, str):
        return {BASE_MODEL: about}
    tokens = file.says.get("tokenizer.ggml.tokens") or []
    keys = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    ids = {name: file.says.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys.items()}
    names = {name: tokens[n] for name, n in ids.items() if isinstance(n, int) and n < len(tokens)}
    return {BASE_MODEL: about, CHAT_TEMPLATE: template, SPECIAL_TOKENS: names}


def _network(file: GgufFile, architecture: Architecture, config: DecoderConfig, length: int | None) -> Any:
    """Return the Keras model of this description with the file's weights, KerasHub's or a container."""
    hub_import.load()
    from kerasgen.models import networks

    in_half = quantized_base.loaded_as() == quantized_base.HALF
    return networks.build(architecture, config, _taking(file, in_half=in_half), "gguf", context_length=length)


def _taking(file: GgufFile, *, in_half: bool) -> tensors.Take:
    """Return what takes a file's tensors; tables of positions stay float32, as little as they are."""
    return lambda name, shape: file.read(name, in_half=in_half and name != _POSITIONS).reshape(shape)


def tokenizer_of(file: GgufFile, config: DecoderConfig) -> Tokenizer:
    """Return the tokenizer in a file.

    Raises:
        ValueError: the file doesn't say all that it needs, or it has more ids than the model.
    """
    from kerasgen.tokens.gguf_tokenizer_reading import from_gguf

    try:
        tokenizer = from_gguf(file.says)
    except KeyError as cause:
        raise ValueError(f"it does not say {cause.args[0]!r}, which its tokenizer needs") from cause
    if tokenizer.vocabulary_size > config.vocabulary_size:
        raise ValueError(f"its tokenizer has {tokenizer.vocabulary_size} ids, and its model {config.vocabulary_size}")
    return tokenizer
