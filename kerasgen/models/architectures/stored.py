"""Reads a decoder's weights from a preset without Keras, because importing KerasHub takes longer than a short text.

What lies in the directory is read only if it is exactly what KerasHub writes for an architecture that kerasgen
computes; for everything else the answer is None, and the model is loaded through KerasHub, which says what is wrong if
something is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kerasgen import limits
from kerasgen.decoder import weights as weights_by_name
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.models import architectures, hdf5, integrity, preset_files, preset_tokenizers
from kerasgen.models.architectures import Architecture, ByteLevelTokens
from kerasgen.tokens.bpe import ByteLevelBPE

_WEIGHTS_FILE = "model.weights.h5"
_SETTINGS = {"name", "trainable", "dtype", "dropout"}
"""Of a backbone's configuration, besides its sizes: nothing that changes what it computes but the type."""


@dataclass(frozen=True, eq=False)
class StoredDecoder:
    """The decoder of a preset's directory.

    Args:
        config: the decoder's.
        weights: what float32 NumPy arrays were converted to.
        tokenizer: the exact one.
    """

    config: DecoderConfig
    weights: Weights
    tokenizer: ByteLevelBPE


def read(directory: Path, convert: Callable[[Weights], Weights] = weights_by_name.whole) -> StoredDecoder | None:
    """Return the decoder whose preset lies in a directory, or None if it is of another kind or form.

    Args:
        directory: of the preset.
        convert: what its weights become; it is given the layers one at a time, as it iterates over them.
    """
    try:
        described = _config(directory)
        if described is None:
            return None
        architecture, tokens, config = described
        integrity.check(directory)
        with hdf5.WeightsFile(directory / _WEIGHTS_FILE) as file:
            places = {_place(architecture, name) for name in weights_by_name.shapes(config)}
            if places != file.datasets.keys():  # weights that this decoder would not compute with
                return None
            weights = convert(_weights(file, architecture, config))
        tokenizer = preset_tokenizers.byte_level(directory, tokens)
    except Exception:  # of any kind: KerasHub reads the same files next, and reports what is wrong with them
        return None
    return StoredDecoder(config, weights, tokenizer) if tokenizer.vocabulary_size <= config.vocabulary_size else None


def _config(directory: Path) -> tuple[Architecture, ByteLevelTokens, DecoderConfig] | None:
    """Return the architecture, its tokens and the decoder's description, if the config sets only sizes."""
    content = limits.read_json(directory / "config.json")
    preset_files.check_config(content, str(directory))
    architecture = architectures.of_backbone(content["class_name"])
    if architecture is None or architecture.tokens is None or not architecture.stored:
        return None
    settings = content["config"]
    policy = settings["dtype"]
    plain = policy if isinstance(policy, str) else policy["class_name"]
    names = set(architecture.arguments)
    is_known = content["registered_name"] == f"keras_hub>{architecture.backbone}" and set(settings) == names | _SETTINGS
    if not is_known or plain not in ("float32", "DTypePolicy") or (directory / "task.weights.h5").exists():
        return None
    task = directory / "task.json"
    if task.exists() and limits.read_json(task)["registered_name"] != f"keras_hub>{architecture.causal_lm}":
        return None
    sizes = {name: settings[name] for name in names}
    are_sizes = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes.values())
    if not are_sizes or sizes["hidden_dim"] % sizes["num_heads"]:
        return None
    config = architecture.describe({**sizes, "layer_norm_epsilon": architecture.layer_norm_epsilon})
    return architecture, architecture.tokens, config


def _weights(file: hdf5.WeightsFile, architecture: Architecture, config: DecoderConfig) -> Weights:
    """Return the decoder's weights; the layers are read as they are iterated over."""

    def take(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        kept = _kept_shape(name, shape, config.attention.head_dim)
        return file.read(_place(architecture, name), kept).reshape(shape)

    return weights_by_name.build_in_turn(config, take)


def _place(architecture: Architecture, name: str) -> str:
    """Return the path of a weight in KerasHub's file, which numbers the layers of each class."""
    *levels, leaf = name.split(".")
    if levels[0] != "layers":
        part = name if name in architecture.stored else ".".join(levels)
        return f"{architecture.stored[part]}/vars/{int(leaf == 'bias')}"
    number, part = levels[1:]
    path = next(row.keras for row in architecture.layer_parts if row.name == part).replace(".", "/")
    return f"{architecture.stored_layer}{f'_{number}' if number != '0' else ''}/{path}/vars/{int(leaf == 'bias')}"


def _kept_shape(name: str, shape: tuple[int, ...], head_dim: int) -> tuple[int, ...]:
    """Return KerasHub's shape of a weight, with an axis of its own for heads."""
    role, leaf = name.split(".")[-2:]
    if role in ("query", "key", "value"):
        return (*shape[:-1], shape[-1] // head_dim, head_dim)
    if (role, leaf) == ("output", "kernel"):
        return (shape[0] // head_dim, head_dim, shape[1])
    return shape
