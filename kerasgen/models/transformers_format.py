"""Transformers-format files (`config.json`, safetensors) become a model; `transformers_tokenizers` reads the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen import locations
from kerasgen.errors import ModelFormatError
from kerasgen.models import architectures
from kerasgen.models.transformers_settings import settings
from kerasgen.models.transformers_tensors import SAFETENSORS_FILE, SAFETENSORS_INDEX

FOREIGN_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
PEFT_CONFIG = locations.PEFT_FILE


def convert(preset: str, config: Mapping[str, Any]) -> Any:
    """Return the model whose logits are those of a transformers-format model.

    It is a `keras_hub.models.CausalLM`, or a `Container` where KerasHub's layers would compute something else.

    Args:
        preset: a directory or hub address.
        config: the content of its `config.json`.

    Raises:
        ModelFormatError: as `check_config` and `check_files`, or a tensor is missing, misshapen or not read.
    """
    settings = check_config(preset, config)
    check_files(preset)
    from kerasgen.models import transformers_decoders

    return transformers_decoders.convert(_architecture(config), preset, settings)


def _architecture(config: Mapping[str, Any]) -> architectures.Architecture:
    """That of a configuration whose settings are known."""
    found = architectures.named(config["model_type"])
    assert found is not None
    return found


def check_config(preset: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Check that what a transformers-format model does can be computed; return what a converter reads.

    Nothing is loaded or fetched for it.

    Args:
        preset: a directory or hub address.
        config: the content of its `config.json`.

    Raises:
        ModelFormatError: a setting is unknown or has no counterpart.
    """
    checked = settings(preset, config)
    from kerasgen.models import transformers_decoders

    transformers_decoders.describe(_architecture(config), preset, checked)
    return checked


def check_files(preset: str) -> None:
    """Check that a transformers-format model has weights that are read, and nothing beside them that changes them.

    Raises:
        ModelFormatError: the weights are not safetensors, or adapters of peft lie beside them.
    """
    if has_file(preset, PEFT_CONFIG):
        raise ModelFormatError(
            f"{preset!r} holds adapters of peft beside the model ({PEFT_CONFIG!r}), which transformers would add. "
            "Move them to a directory of their own, and put them on the model with Pipeline(…).load_adapter(path)."
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
