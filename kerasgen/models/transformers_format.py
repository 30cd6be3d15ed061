"""Transformers-format files (`config.json`, safetensors, the tokenizer's) become settings, tensors, a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.models.architectures import ByteLevelFamily
from kerasgen.tokens.bpe import ByteLevelBPE

SAFETENSORS_FILE = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
FOREIGN_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")

# What each architecture must say for KerasHub's layers to compute the same; a key that is absent has this value.
_REQUIRED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    },
    "opt": {
        "activation_function": ("relu",),
        "do_layer_norm_before": (True,),
        "_remove_final_layer_norm": (False,),
        "enable_bias": (True,),
        "layer_norm_elementwise_affine": (True,),
        "tie_word_embeddings": (True,),
    },
}


def check_config(preset: str, config: Mapping[str, Any]) -> None:
    """Check that KerasHub's layers compute what a transformers-format model does, before any weight is read.

    Args:
        preset: a directory or hub address.
        config: the content of its `config.json`.

    Raises:
        ModelFormatError: a setting of the architecture has no counterpart, or the weights are not safetensors.
    """
    model_type = config["model_type"]
    for key, allowed in _REQUIRED.get(model_type, {}).items():
        if key in config and config[key] not in allowed:
            raise ModelFormatError(
                f"The {model_type} model {preset!r} has {key}={config[key]!r}; KerasHub's layers have only "
                f"{' or '.join(map(repr, allowed))}, so the model can't be read without changing what it says."
            )
    if model_type == "gpt2" and config.get("n_inner") not in (None, 4 * config["n_embd"]):
        raise ModelFormatError(
            f"The gpt2 model {preset!r} has n_inner={config['n_inner']}; KerasHub's converter knows only 4 * n_embd, "
            f"{4 * config['n_embd']}."
        )
    if model_type == "opt":
        width, hidden = config.get("word_embed_proj_dim"), config["hidden_size"]
        if width not in (None, hidden):
            raise ModelFormatError(
                f"The opt model {preset!r} has word embeddings of width {width} that are projected to "
                f"hidden_size={hidden} (as opt-350m has); KerasHub's OPT has no such projection. The other "
                "OPT sizes (125m, 1.3b, 2.7b, …) have none either and can be read."
            )
    if not (has_file(preset, SAFETENSORS_INDEX) or has_file(preset, SAFETENSORS_FILE)):
        foreign = [name for name in FOREIGN_WEIGHTS if has_file(preset, name)]
        found = f" Found {', '.join(map(repr, foreign))} instead." if foreign else ""
        raise ModelFormatError(
            f"The transformers-format model {preset!r} has no {SAFETENSORS_FILE!r}.{found} Save it again with "
            "`model.save_pretrained(directory, safe_serialization=True)`."
        )


def has_file(preset: str, name: str) -> bool:
    """Whether a local or remote preset holds a file (a remote one is fetched by this)."""
    from keras_hub.src.utils.preset_utils import check_file_exists

    return bool(check_file_exists(preset, name))


def read_json(preset: str, name: str) -> Any:
    """Return the content of a preset's JSON file."""
    from keras_hub.src.utils.preset_utils import load_json

    return load_json(preset, name)


def byte_level_tokenizer(preset: str, family: ByteLevelFamily) -> ByteLevelBPE:
    """Return the byte-level BPE of a preset: from `tokenizer.json`, else from `vocab.json` with `merges.txt`.

    Raises:
        ModelFormatError: neither is there.
        TokenizerError: the files are malformed, or describe another kind of tokenizer.
    """
    from keras_hub.src.utils.preset_utils import get_file

    # A remote preset's files come one by one, into one folder.
    found = [name for name in TOKENIZER_FILES if has_file(preset, name)]
    if "tokenizer.json" not in found and not {"vocab.json", "merges.txt"} <= set(found):
        raise ModelFormatError(
            f"The transformers-format model {preset!r} has no tokenizer files: neither 'tokenizer.json' nor "
            "'vocab.json' with 'merges.txt'. Save its tokenizer into the same directory."
        )
    return ByteLevelBPE.from_directory(
        Path(get_file(preset, found[0])).parent,
        start_token=family.start_token,
        end_token=family.end_token,
        pad_token=family.pad_token,
    )


class Tensors(ExitStack):
    """The tensors of a preset's safetensors files by name, whatever prefix the whole model gave them.

    Args:
        preset: a directory or hub address.
        prefixes: taken off a tensor's name, the first one that fits.
    """

    def __init__(self, preset: str, *, prefixes: tuple[str, ...]) -> None:
        super().__init__()
        # safetensors returns bfloat16 to NumPy only once this package has taught NumPy the type.
        import ml_dtypes  # noqa: F401
        from keras_hub.src.utils.preset_utils import get_file
        from safetensors import SafetensorError, safe_open

        self._preset = preset
        self._files: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        if has_file(preset, SAFETENSORS_INDEX):
            names = sorted(set(read_json(preset, SAFETENSORS_INDEX)["weight_map"].values()))
        else:
            names = [SAFETENSORS_FILE]
        for name in names:
            try:
                file = self.enter_context(safe_open(get_file(preset, name), framework="np"))
            except SafetensorError as cause:
                self.close()
                raise ModelFormatError(
                    f"The weights file {name!r} of {preset!r} is damaged or no safetensors file: {cause}. "
                    "Download it again."
                ) from cause
            for full in file.keys():  # noqa: SIM118  (a handle, not a dictionary)
                short = next((full[len(p) :] for p in prefixes if full.startswith(p)), full)
                self._files[short] = file
                self._names[short] = full

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def take(self, name: str, shape: tuple[int, ...]) -> Any:
        """Return one tensor as float32.

        Raises:
            ModelFormatError: it is missing, or has another shape.
        """
        import numpy as np

        if name not in self._files:
            near = ", ".join(sorted(self._files)[:6])
            raise ModelFormatError(
                f"The weights of {self._preset!r} have no tensor {name!r}. They begin with: {near or 'nothing'}."
            )
        tensor = self._files[name].get_tensor(self._names[name])
        if tuple(tensor.shape) != shape:
            raise ModelFormatError(
                f"The tensor {self._names[name]!r} of {self._preset!r} has the shape {tuple(tensor.shape)}; its "
                f"'config.json' asks for {shape}."
            )
        return np.asarray(tensor, dtype=np.float32)
