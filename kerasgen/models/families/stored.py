"""A preset's files become a decoder's weights without Keras: importing KerasHub takes longer than a short text.

What lies in the directory is read only if it is exactly what KerasHub writes for a family that kerasgen computes; for
everything else the answer is None, and the model is loaded through KerasHub, which says what is wrong if something is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kerasgen import limits
from kerasgen.models import architectures, hdf5, integrity, preset_files, preset_tokenizers
from kerasgen.models.families.base import DecoderLayer, DecoderShape, DecoderWeights
from kerasgen.tokens.bpe import ByteLevelBPE

_WEIGHTS_FILE = "model.weights.h5"
_EPSILON = 1e-5  # both backbones' own, which no configuration changes

_SIZES = {"vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim", "max_sequence_length"}
_SETTINGS = _SIZES | {"name", "trainable", "dtype", "dropout"}

# Where the tables lie in the file, which names a layer by its class and counts those of a class.
_TABLES = {
    "GPT2Backbone": ("layers/reversible_embedding/vars/0", "layers/position_embedding/vars/0"),
    "OPTBackbone": (
        "layers/token_and_position_embedding/token_embedding/vars/0",
        "layers/token_and_position_embedding/position_embedding/vars/0",
    ),
}


@dataclass(frozen=True, eq=False)
class StoredDecoder:
    """What a directory holds.

    Args:
        shape: of the decoder.
        weights: float32 NumPy arrays.
        tokenizer: the exact one.
    """

    shape: DecoderShape
    weights: DecoderWeights
    tokenizer: ByteLevelBPE


def read(directory: Path) -> StoredDecoder | None:
    """Return the decoder whose preset lies in a directory, or None if it is of another kind or form."""
    try:
        config = _config(directory)
        if config is None:
            return None
        name, sizes = config
        integrity.check(directory)
        with hdf5.WeightsFile(directory / _WEIGHTS_FILE) as file:
            weights, read = _weights(file, name, sizes)
            if read != file.datasets.keys():  # weights that this decoder would not compute with
                return None
        family = architectures.byte_level_tokens(name)
        assert family is not None
        tokenizer = preset_tokenizers.byte_level(directory, family)
    except Exception:  # of whatever kind: KerasHub reads the same files next, and tells what is wrong with them
        return None
    from kerasgen.models import families

    computed = families.family_named(name)
    shape = DecoderShape(family=computed.name, activation=computed.activation, layer_norm_epsilon=_EPSILON, **sizes)
    return StoredDecoder(shape, weights, tokenizer) if tokenizer.vocabulary_size <= shape.vocabulary_size else None


def _config(directory: Path) -> tuple[str, dict[str, int]] | None:
    """The backbone's class and its sizes, if nothing else is set."""
    found = limits.read_json(directory / "config.json")
    preset_files.check_config(found, str(directory))
    name = found["class_name"]
    settings = found["config"]
    policy = settings["dtype"]
    plain = policy if isinstance(policy, str) else policy["class_name"]
    is_known = name in _TABLES and found["registered_name"] == f"keras_hub>{name}" and set(settings) == _SETTINGS
    if not is_known or plain not in ("float32", "DTypePolicy") or (directory / "task.weights.h5").exists():
        return None
    task = directory / "task.json"
    causal_lm = name.replace("Backbone", "CausalLM")
    if task.exists() and limits.read_json(task)["registered_name"] != f"keras_hub>{causal_lm}":
        return None
    sizes = {size: settings[size] for size in _SIZES}
    are_sizes = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes.values())
    return (name, sizes) if are_sizes and sizes["hidden_dim"] % sizes["num_heads"] == 0 else None


def _weights(file: hdf5.WeightsFile, name: str, sizes: dict[str, int]) -> tuple[DecoderWeights, set[str]]:
    """The decoder's weights, and which datasets they are."""
    width, inner, heads = sizes["hidden_dim"], sizes["intermediate_dim"], sizes["num_heads"]
    read: set[str] = set()

    def take(path: str, *shape: int) -> npt.NDArray[np.float32]:
        read.add(path)
        return file.read(path, shape)

    def layer(number: int) -> DecoderLayer:
        base = f"layers/transformer_decoder{f'_{number}' if number else ''}"
        parts = [f"{base}/_self_attention_layer/{part}_dense" for part in ("query", "key", "value")]
        split = (heads, width // heads)
        kernels = [take(f"{part}/vars/0", width, *split).reshape(width, width) for part in parts]
        output = f"{base}/_self_attention_layer/output_dense"
        up, down = (f"{base}/_feedforward_{part}_dense" for part in ("intermediate", "output"))
        first, second = (f"{base}/_{part}_layer_norm" for part in ("self_attention", "feedforward"))
        return DecoderLayer(
            attention_gamma=take(f"{first}/vars/0", width),
            attention_beta=take(f"{first}/vars/1", width),
            qkv_kernel=np.concatenate(kernels, axis=1),
            qkv_bias=np.concatenate([take(f"{part}/vars/1", *split).reshape(width) for part in parts]),
            output_kernel=take(f"{output}/vars/0", *split, width).reshape(width, width),
            output_bias=take(f"{output}/vars/1", width),
            feedforward_gamma=take(f"{second}/vars/0", width),
            feedforward_beta=take(f"{second}/vars/1", width),
            up_kernel=take(f"{up}/vars/0", width, inner),
            up_bias=take(f"{up}/vars/1", inner),
            down_kernel=take(f"{down}/vars/0", inner, width),
            down_bias=take(f"{down}/vars/1", width),
        )

    tokens, positions = _TABLES[name]
    weights = DecoderWeights(
        token_embedding=take(tokens, sizes["vocabulary_size"], width),
        position_embedding=take(positions, sizes["max_sequence_length"], width),
        layers=tuple(layer(number) for number in range(sizes["num_layers"])),
        final_gamma=take("layers/layer_normalization/vars/0", width),
        final_beta=take("layers/layer_normalization/vars/1", width),
    )
    return weights, read
