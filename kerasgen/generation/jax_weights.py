"""Makes the JAX engine of a model; its weights follow the model's variables. Imports JAX."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from kerasgen import backend, fork_safety
from kerasgen.decoder import jax_layout
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.generation.jax_engine import JaxEngine
from kerasgen.models import described, gguf_loading
from kerasgen.models.architectures import stored
from kerasgen.models.base import LanguageModel, computing_layers
from kerasgen.tokens.base import Tokenizer


def is_known(model: LanguageModel) -> bool:
    """Return whether the model has a description and is as it was built, in plain float32."""
    if not described.is_stock(model) or described.config_of(model) is None:
        return False
    return all(
        layer.compute_dtype == "float32" and getattr(layer, "quantization_mode", None) is None
        for layer in computing_layers(model.network)
        if hasattr(layer, "compute_dtype")
    )


def config_of(model: LanguageModel) -> DecoderConfig:
    """Return the description of a known model."""
    config = described.config_of(model)
    assert config is not None
    return config


def engine_of_files(place: Path) -> JaxEngine | None:
    """Return the engine of a preset or of a GGUF file, made without Keras, or None where the model must be loaded."""
    decoder_parts: tuple[Tokenizer, DecoderConfig, Weights] | None
    if place.is_dir():
        decoder = stored.read(place)
        decoder_parts = None if decoder is None else (decoder.tokenizer, decoder.config, decoder.weights)
    else:
        decoder_parts = gguf_loading.decoder(place)
    if decoder_parts is None:
        return None
    tokenizer, config, weights = decoder_parts
    fork_safety.begin(fork_safety.JAX)
    backend.keep_compiled(everything=True)
    return JaxEngine(tokenizer, config, jax_layout.prepare(weights))


class _Kept:
    """An engine, and the state of the variables that its weights were prepared from."""

    def __init__(self, engine: JaxEngine, state: tuple[Any, ...]) -> None:
        self.engine = engine
        self.state = state


# What is compiled and prepared lives as long as the model.
_PREPARING = threading.Lock()
_KEPT: weakref.WeakKeyDictionary[Any, dict[str, _Kept]] = weakref.WeakKeyDictionary()


def engine_of(model: LanguageModel) -> JaxEngine:
    """Return the engine of a known model with its present weights."""
    backend.keep_compiled(everything=True)
    with _PREPARING:
        state, engines = state_of(model), _KEPT.setdefault(model.network, {})
        key = model.tokenizer.digest()
        if key not in engines:
            engines[key] = _Kept(JaxEngine(model.tokenizer, config_of(model), prepare(model)), state)
        elif not is_same(engines[key].state, state):
            engines[key].engine.replace(prepare(model))
            engines[key].state = state
        return engines[key].engine


def state_of(model: LanguageModel) -> tuple[Any, ...]:
    """Return a state that changes whenever a weight does: on JAX the arrays themselves, elsewhere sums of bits."""
    import keras

    variables = model.network.variables
    if keras.config.backend() == "jax":
        return tuple(variable.value for variable in variables)
    sums: list[Any] = []
    for variable in variables:
        words = np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).reshape(-1).view(np.uint8)
        words = words[: len(words) // 4 * 4].view(np.uint32)
        sums.append((int(words.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(words)) if len(words) else 0))
    return tuple(sums)


def is_same(state: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    """Return whether two answers of `state_of` are of the same weights."""
    if state is None or len(state) != len(other):
        return False
    return all(a is b or (isinstance(a, tuple) and a == b) for a, b in zip(state, other, strict=True))


def prepare(model: LanguageModel) -> Weights:
    """Return a known model's weights as JAX computes with them, adapters merged."""
    return jax_layout.prepare(described.weights_of(model))
