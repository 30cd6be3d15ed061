"""A model with the shapes of another one and only its first layers, whose weights are drawn and not read.

Imports the standard library and NumPy only; loading imports Keras.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import limits
from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ArgumentError
from kerasgen.models import kinds
from kerasgen.models.base import ModelSource

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.base import Tokenizer

_DEVIATION = 0.02


@dataclass(frozen=True)
class ShortenedModel(ModelSource):
    """The first layers of a model's shape, with drawn weights and the model's own tokenizer.

    Args:
        source: of the model; its files must lie on this machine.
        layers: how many, at most those that the model has.
    """

    source: ModelSource
    layers: int

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.source}"

    def check(self) -> None:
        """Say whether the model's files are there."""
        self.source.check()

    def load(self) -> LanguageModel:
        """Return the short model.

        Raises:
            ArgumentError: the model's files don't lie on this machine, or it is none whose computation is described.
        """
        from kerasgen import backend

        backend.use()
        gguf = self.source.gguf_file()
        if gguf is not None:
            return self._of_gguf(gguf)
        check(self.source)
        directory = self.source.directory()
        assert directory is not None
        config = limits.read_json(directory / "config.json")
        if "model_type" in config:
            return self._of_transformers(directory, config)
        return self._of_preset(directory, config)

    def _of_gguf(self, path: Path) -> LanguageModel:
        from kerasgen.models import gguf_loading
        from kerasgen.models.gguf_file import GgufFile

        with GgufFile(path) as file:
            _, config = gguf_loading.described(file)
            tokenizer = gguf_loading.tokenizer_of(file, config)
            config, length = gguf_loading.without_limit(config)
        return self._drawn(config, tokenizer, length)

    def _of_transformers(self, directory: Path, config: Any) -> LanguageModel:
        from kerasgen.models import (
            architectures,
            masked_loading,
            transformers_decoders,
            transformers_settings,
            transformers_tokenizers,
        )

        if masked_loading.is_masked(config):
            raise _no_masked(self.source)
        settings = transformers_settings.settings(str(directory), config)
        architecture = architectures.named(config["model_type"])
        assert architecture is not None
        described = transformers_decoders.describe(architecture, str(directory), settings)
        family = None if architecture.backbone is None else architectures.byte_level_tokens(architecture.backbone)
        tokenizer = transformers_tokenizers.read(str(directory), family, config, lambda: None)
        length = settings.get("max_position_embeddings")
        return self._drawn(described, tokenizer, length if isinstance(length, int) else None)

    def _of_preset(self, directory: Path, config: Any) -> LanguageModel:
        from kerasgen.models import container_files, hub_import, loading, masked_loading
        from kerasgen.models.architectures import keras_weights
        from kerasgen.models.base import LanguageModel

        if container_files.is_ours(config):
            described, tokenizer = container_files.read_description(directory, config)
            return self._drawn(described, tokenizer, config.get("context_length"))
        if masked_loading.is_masked(config):
            raise _no_masked(self.source)
        hub_import.load()
        import keras

        short = copy.deepcopy(config)
        whole_layers = short["config"].get("num_layers")
        if not isinstance(whole_layers, int):
            raise ArgumentError(f"Nothing can be estimated of {str(self.source)!r}: its preset doesn't say its layers.")
        short["config"]["num_layers"] = self._layers_of(whole_layers)
        backbone = keras.saving.deserialize_keras_object(short)
        architecture = keras_weights.architecture_of_backbone(backbone)
        if architecture is None:
            raise ArgumentError(
                f"Nothing can be estimated of {str(self.source)!r}: kerasgen doesn't know the computation of a "
                f"{type(backbone).__name__}."
            )
        kind = getattr(hub_import.load().models, architecture.causal_lm)
        causal_lm = kind(backbone=backbone, preprocessor=None)
        tokenizer = loading.preset_tokenizer(str(directory), causal_lm)
        whole = replace(keras_weights.describe(architecture, backbone), num_layers=whole_layers)
        return LanguageModel(causal_lm, tokenizer, str(self.source), {WHOLE: whole})

    def _drawn(self, config: DecoderConfig, tokenizer: Tokenizer, length: int | None) -> LanguageModel:
        from kerasgen.models import architectures, hub_import, networks
        from kerasgen.models.base import CONTEXT_LENGTH, LanguageModel

        hub_import.load()
        architecture = architectures.named(config.architecture)
        assert architecture is not None
        short = _cut(config, self._layers_of(config.num_layers))
        network = networks.build(architecture, short, _Drawing(), "transformers", context_length=length)
        reason = architecture.hub_reason(short)
        known = {WHOLE: config} | ({} if length is None else {CONTEXT_LENGTH: length})
        return LanguageModel(
            causal_lm=None if reason else network,
            tokenizer=tokenizer,
            source=str(self.source),
            metadata=known,
            container=network if reason else None,
            hub_reason=reason,
        )

    def _layers_of(self, whole: int) -> int:
        return min(self.layers, whole)


def check(source: ModelSource) -> None:
    """Raise unless a model's files lie here and it continues a text, as far as files tell.

    Raises:
        ArgumentError: they don't, or it fills masks.
    """
    if source.gguf_file() is None and source.directory() is None:
        raise ArgumentError(
            f"Nothing can be estimated of {str(source)!r}: its files don't lie on this machine. Name a "
            "directory or a GGUF file."
        )
    if kinds.is_masked(source):
        raise _no_masked(source)


WHOLE = "whole"
"""Where a short model's metadata keep the description of the whole one."""


class _Drawing:
    """Gives every tensor that is asked for as noise."""

    def __init__(self) -> None:
        import numpy as np

        self._generator = np.random.default_rng(0)

    def __call__(self, name: str, shape: tuple[int, ...]) -> Any:
        import numpy as np

        noise = self._generator.standard_normal(shape, dtype=np.float32)
        return noise * np.float32(_DEVIATION)


def _cut(config: DecoderConfig, layers: int) -> DecoderConfig:
    """Return the description with its first layers alone."""
    experts = config.feedforward.experts
    feedforward = config.feedforward
    if experts is not None:
        feedforward = replace(feedforward, experts=replace(experts, layers=experts.layers[:layers]))
    return dataclasses.replace(
        config,
        num_layers=layers,
        attention=replace(config.attention, windows=config.attention.windows[:layers]),
        feedforward=feedforward,
        positions_by_layer=config.positions_by_layer[:layers],
    )


def _no_masked(source: ModelSource) -> ArgumentError:
    return ArgumentError(
        f"Nothing can be estimated of {str(source)!r}: it fills masks, and only what continues a text is estimated."
    )
