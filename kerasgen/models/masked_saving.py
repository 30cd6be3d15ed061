"""A masked language model becomes a KerasHub preset, or kerasgen's own form where KerasHub would compute otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from kerasgen.errors import ModelError
from kerasgen.models import encoders, hub_import, masked_files, masked_loading
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.models.encoders.base import EncoderArchitecture, hub_arguments
from kerasgen.models.preset_tokenizers import SETTINGS_FILE, write_pretrained
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.pretrained import PretrainedTokenizer

PROTO_FILE: Final = "vocabulary.spm"


def hub_difference(model: MaskedLanguageModel) -> str | None:
    """Return why KerasHub's class would compute another model, or None."""
    difference = _architecture(model).hub_difference(model.network.config)
    return None if difference is None else f"KerasHub's {_architecture(model).task} has {difference}"


def write(model: MaskedLanguageModel, directory: Path, dtype: Literal["float32", "float16"] | None) -> list[str]:
    """Write a model into an existing directory, and return the names of Keras's files of weights in it.

    Raises:
        ModelError: the tokenizer is none that can be written.
    """
    if not isinstance(model.tokenizer, PretrainedTokenizer):
        raise ModelError(f"A {type(model.tokenizer).__name__} can't be saved with a masked language model.")
    if hub_difference(model) is not None:
        masked_files.write(model, directory, dtype)
        return []
    task = hub_task(model)
    task.save_to_preset(str(directory))
    write_pretrained(model.tokenizer, directory)
    if model.tokenizer.proto is not None:
        (directory / SETTINGS_FILE).with_name(PROTO_FILE).write_bytes(model.tokenizer.proto)
    return [path.name for path in sorted(directory.glob("*.h5"))]


def hub_task(model: MaskedLanguageModel) -> Any:
    """Return a masked language model of KerasHub's with a copy of the weights, and KerasHub's own tokenizer if it can.

    Raises:
        ModelError: KerasHub's class would compute another model.
    """
    difference = hub_difference(model)
    if difference is not None:
        raise ModelError(f"The model can't be one of KerasHub: {difference}.")
    models = hub_import.load().models
    architecture, config = _architecture(model), model.network.config
    name = architecture.task.removesuffix("MaskedLM")
    backbone = getattr(models, f"{name}Backbone")(**hub_arguments(config), dtype="float32")
    tokenizer = hub_tokenizer(model)
    preprocessor = None
    if tokenizer is not None:
        kind = getattr(models, f"{name}MaskedLMPreprocessor")
        preprocessor = kind(tokenizer, sequence_length=config.max_positions)
    task = getattr(models, architecture.task)(backbone, preprocessor=preprocessor, dtype="float32")
    named = model.network.read()
    for part, place in masked_loading.hub_places(architecture, config, task):
        for weight, variable in masked_loading.variables(part, place):
            variable.assign(np.reshape(named[weight], variable.shape))
    return task


def hub_tokenizer(model: MaskedLanguageModel) -> Any:
    """Return KerasHub's tokenizer of the same vocabulary, or None where its class can't hold it.

    Its ids of a text may differ from the exact tokenizer's: ALBERT's of KerasHub lower-cases nothing, for one.
    """
    codec = getattr(model.tokenizer, "codec", None)
    if not isinstance(codec, JsonCodec):
        return None
    models, architecture = hub_import.load().models, _architecture(model)
    kind = getattr(models, f"{architecture.task.removesuffix('MaskedLM')}Tokenizer")
    content = json.loads(codec.content())["model"]
    try:
        if codec.model_kind == "BPE" and architecture.name == "roberta":
            merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["merges"]]
            return hub_import.tokenizer_in_python(lambda: kind(vocabulary=content["vocab"], merges=merges))
        if codec.model_kind == "WordPiece" and architecture.name in ("bert", "distilbert"):
            words = sorted(content["vocab"], key=content["vocab"].__getitem__)
            normalizer = json.loads(codec.content()).get("normalizer") or {}
            return kind(words, lowercase=bool(normalizer.get("lowercase")))
        proto = getattr(model.tokenizer, "proto", None)
        if proto is not None and architecture.name in ("albert", "xlm-roberta", "deberta-v2"):
            return hub_import.tokenizer_in_python(lambda: kind(proto=proto))
    except (ValueError, TypeError, KeyError, ImportError):
        return None  # its class wants tokens that the vocabulary lacks
    return None


def _architecture(model: MaskedLanguageModel) -> EncoderArchitecture:
    found = encoders.named(model.network.config.architecture)
    assert found is not None
    return found
