"""Gives a model's description and its weights by name, wherever they live.

Imports NumPy only; the model has imported Keras.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.models import architectures
from kerasgen.models.architectures import Architecture, keras_weights
from kerasgen.models.architectures.keras_weights import Place
from kerasgen.models.base import LanguageModel, MaskedLanguageModel


def config_of(model: LanguageModel) -> DecoderConfig | None:
    """Return the description of a model, or None where kerasgen knows none that says what its layers compute."""
    if isinstance(model, MaskedLanguageModel):
        return None
    if model.container is not None:
        config: DecoderConfig = model.container.config
        return config
    architecture = keras_weights.architecture_of(model.causal_lm)
    return None if architecture is None else keras_weights.describe(architecture, model.backbone)


def architecture_of(model: LanguageModel) -> Architecture | None:
    """Return the table of names of a model's architecture, or None where there is none or it would be wrong."""
    if isinstance(model, MaskedLanguageModel):
        return None
    if model.container is not None:
        return architectures.named(model.container.config.architecture)
    return keras_weights.architecture_of(model.causal_lm)


def weights_of(model: LanguageModel) -> Weights:
    """Return the weights of a model with a description as float32 NumPy arrays, adapters added in. They are copies.

    Raises:
        ModelError: the model is quantized.
    """
    if model.container is not None:
        weights: Weights = model.container.read()
        return weights
    architecture = keras_weights.architecture_of(model.causal_lm)
    assert architecture is not None
    return keras_weights.read(architecture, model.backbone)


def places_of(model: LanguageModel) -> Iterator[Place]:
    """Yield where the Keras variables of a model with a description hold the weights, in the order of the layers."""
    if model.container is not None:
        yield from model.container.places()
        return
    architecture = keras_weights.architecture_of(model.causal_lm)
    assert architecture is not None
    yield from keras_weights.places(architecture, model.backbone)


def decoder_of(model: LanguageModel) -> tuple[DecoderConfig, Weights]:
    """Return the description of a model that has one, and its weights as `weights_of` does."""
    config = config_of(model)
    assert config is not None
    return config, weights_of(model)


def sharded(model: LanguageModel, axis: str) -> dict[str, tuple[str | None, ...]]:
    """Return how the axis of a mesh cuts the variables of a model with a description; see `keras_weights.sharded`."""
    if model.container is not None:
        return keras_weights.cuts(model.container.variables_by_name().items(), axis)
    architecture = keras_weights.architecture_of(model.causal_lm)
    assert architecture is not None
    return keras_weights.sharded(architecture, model.backbone, axis)


def is_stock(model: LanguageModel) -> bool:
    """Return whether a model's classes are KerasHub's or kerasgen's own: a person's may compute something else."""
    if model.container is not None:
        return True
    return all(type(part).__module__.startswith("keras_hub.") for part in (model.causal_lm, model.backbone))


def name_of(model: LanguageModel) -> Any:
    """Return what a message calls a model: KerasHub's backbone class, or the described architecture."""
    is_hubs = not isinstance(model, MaskedLanguageModel) and model.causal_lm is not None
    return model.kind if not is_hubs else type(model.backbone).__name__
