"""Loads a masked language model: a KerasHub preset, a transformers directory, or kerasgen's own form.

Imports KerasHub where a preset of its is read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from kerasgen.encoder import weights
from kerasgen.encoder.config import EncoderConfig
from kerasgen.errors import KerasgenWarning, ModelArgumentError, ModelFormatError
from kerasgen.models import encoders, hub_import
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.models.encoders.base import EncoderArchitecture
from kerasgen.models.masked_files import FORMAT

Weights = dict[str, Any]


def is_masked(config: Any) -> bool:
    """Return whether a model's `config.json` is a masked language model's, as far as it tells."""
    if not isinstance(config, Mapping):
        return False
    if config.get("format") == FORMAT:
        return True
    if "registered_name" in config:
        return encoders.of_backbone(str(config["registered_name"])) is not None
    return encoders.named(config.get("model_type")) is not None


def load(preset: str, config: Mapping[str, Any], *, source: str, metadata: Mapping[str, Any]) -> MaskedLanguageModel:
    """Return the model whose files lie at a preset.

    Args:
        preset: a directory or hub address.
        config: the content of its `config.json`, one that `is_masked`.
        source: how to ask for the model again.
        metadata: what else is known about it.

    Raises:
        ModelFormatError: it can't be read exactly.
        TokenizerError: its tokenizer can't.
    """
    from kerasgen.models import masked_files, masked_tokenizers

    if config.get("format") == FORMAT:
        return masked_files.load(Path(preset), config, source=source, metadata=metadata)
    if "registered_name" in config:
        architecture, described, named = _of_hub(preset, config)
        tokenizer = masked_tokenizers.of_hub(preset, architecture)
    else:
        architecture, described, named = _of_transformers(preset, config)
        tokenizer = masked_tokenizers.of_transformers(preset, architecture)
    if tokenizer.vocabulary_size > described.vocabulary_size:
        raise ModelFormatError(
            f"The tokenizer of {preset!r} has {tokenizer.vocabulary_size} ids and its model only "
            f"{described.vocabulary_size}: they don't belong together."
        )
    from kerasgen.models.encoder_network import EncoderNetwork

    network = EncoderNetwork(described)
    network.assign(named)
    return MaskedLanguageModel(network, tokenizer, source, metadata)


def check_config(preset: str, config: Mapping[str, Any]) -> EncoderConfig:
    """Return the description of a transformers-format model, before any weight of it is read.

    Raises:
        ModelFormatError: it is no masked language model, or one that is not computed here.
    """
    architecture = encoders.named(config["model_type"])
    assert architecture is not None
    what = f"The {architecture.name} model {preset!r}"
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not set(map(str, classes)) <= {
        architecture.model_class,
        architecture.model_class.replace("MaskedLM", "PreTraining"),
    }:
        raise ModelFormatError(
            f"{what} has architectures={classes!r}, and only {architecture.model_class} predicts masked tokens. Save "
            "the model with its masked language model's head."
        )
    if config.get("auto_map"):
        raise ModelFormatError(f"{what} has auto_map={config['auto_map']!r}: code of its own, which is not run.")
    try:
        return architecture.read_config(what, {key: value for key, value in config.items() if key != "auto_map"})
    except (ModelArgumentError, ArithmeticError, TypeError, ValueError) as cause:
        raise ModelFormatError(f"{what} has settings that don't fit each other: {cause}") from cause


def _of_transformers(preset: str, config: Mapping[str, Any]) -> tuple[EncoderArchitecture, EncoderConfig, Weights]:
    from kerasgen.models.transformers_format import check_files
    from kerasgen.models.transformers_tensors import Tensors

    described = check_config(preset, config)
    architecture = encoders.named(config["model_type"])
    assert architecture is not None
    check_files(preset)
    named: Weights = {}
    with Tensors(preset) as source:
        for part, shape, theirs in names(architecture, described):
            if part == "head.bias":
                other = f"{architecture.head_table}.bias"
                named[part] = source.take(theirs if theirs in source or other not in source else other, shape)
            elif part == "embedding.positions":
                offset = architecture.position_offset
                named[part] = source.take(f"{theirs}.weight", (shape[0] + offset, shape[1]))[offset:]
            elif part in weights.TABLES:
                named[part] = source.take(f"{theirs}.weight", shape)
            elif weights.is_norm(part):
                old = f"{theirs}.gamma" in source
                named[f"{part}.scale"] = source.take(f"{theirs}.{'gamma' if old else 'weight'}", shape)
                named[f"{part}.bias"] = source.take(f"{theirs}.{'beta' if old else 'bias'}", shape)
            else:
                named[f"{part}.kernel"] = source.take(f"{theirs}.weight", shape[::-1]).T
                named[f"{part}.bias"] = source.take(f"{theirs}.bias", shape[1:])
        if architecture.folds_segments and not described.num_segments:
            types = architecture.parts["embedding.segments"].transformers
            named["embedding.positions"] = named["embedding.positions"] + source.take(
                f"{types}.weight", (1, described.embedding_dim)
            )
        source.check_tied(f"{architecture.head_table}.weight", named["embedding.tokens"])
        source.check_all_read(besides=(*architecture.ignored, re.escape(f"{architecture.head_table}.bias")))
    return architecture, described, named


def names(architecture: EncoderArchitecture, config: EncoderConfig) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield each part of an encoder, its shape, and what transformers calls it."""
    for part, shape in weights.parts(config):
        if not part.startswith("layers."):
            yield part, shape, architecture.parts[part].transformers
            continue
        _, index, role = part.split(".")
        yield part, shape, _block(architecture.layer, config, int(index)) + architecture.layer_parts[role].transformers


def _block(pattern: str, config: EncoderConfig, index: int) -> str:
    group, inner = divmod(index, config.layers_per_group)
    return pattern.format(index, group=group, inner=inner)


def hub_places(architecture: EncoderArchitecture, config: EncoderConfig, task: Any) -> Iterator[tuple[str, Any]]:
    """Yield each part of an encoder, and the layer or variable of KerasHub's task that holds it."""
    for part, _ in weights.parts(config):
        if part.startswith("layers."):
            _, index, role = part.split(".")
            block = _block(architecture.keras_layer, config, int(index))
            path = f"{block}.{architecture.layer_parts[role].keras}"
        else:
            path = architecture.parts[part].keras
        yield part, reduce(_member, path.split("."), task)


def _member(owner: Any, name: str) -> Any:
    return owner[int(name)] if name.isdecimal() else getattr(owner, name)


def _of_hub(preset: str, config: Mapping[str, Any]) -> tuple[EncoderArchitecture, EncoderConfig, Weights]:
    from kerasgen.models import transformers_format

    keras_hub = hub_import.load()
    architecture = encoders.of_backbone(str(config["registered_name"]))
    assert architecture is not None
    task = getattr(keras_hub.models, architecture.task).from_preset(preset, preprocessor=None, dtype="float32")
    described, named = of_task(task)
    if not transformers_format.has_file(preset, "task.json"):
        named |= new_head(described)
        warnings.warn(
            f"The preset {preset!r} holds an encoder without a masked language model's head, which begins anew: it "
            "predicts nothing before it is tuned.",
            KerasgenWarning,
            stacklevel=2,
        )
    return architecture, described, named


def of_task(task: Any) -> tuple[EncoderConfig, Weights]:
    """Return the description and the weights of a masked language model of KerasHub's, as copies."""
    backbone = task.backbone
    architecture = encoders.of_backbone(type(backbone).__name__)
    assert architecture is not None
    described = architecture.described(backbone.get_config(), float(backbone.dropout))
    named: Weights = {}
    shapes = weights.shapes(described)
    for part, place in hub_places(architecture, described, task):
        for name, variable in variables(part, place):
            named[name] = np.asarray(variable, np.float32).reshape(shapes[name])
    return described, named


def variables(part: str, place: Any) -> Iterator[tuple[str, Any]]:
    """Yield the full name of each weight of a part, and KerasHub's variable of it."""
    if part in ("head.bias", "relative.table"):
        yield part, place
    elif part in weights.TABLES:
        yield part, getattr(place, "position_embeddings", None) if part == "embedding.positions" else place.embeddings
    elif weights.is_norm(part):
        yield f"{part}.scale", place.gamma
        yield f"{part}.bias", place.beta
    else:
        yield f"{part}.kernel", place.kernel
        yield f"{part}.bias", place.bias


def new_head(config: EncoderConfig, seed: int = 0) -> Weights:
    """Return the weights of a head that nothing has been learned by yet."""
    draws = np.random.default_rng(seed)
    named: Weights = {}
    for name, shape in weights.shapes(config).items():
        if name.startswith("head."):
            drawn = draws.normal(0.0, 0.02, shape) if name.endswith("kernel") else np.zeros(shape)
            named[name] = (drawn + name.endswith("scale")).astype(np.float32)
    return named
