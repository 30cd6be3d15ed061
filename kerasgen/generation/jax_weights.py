"""Makes the JAX engine of a model; its weights follow the model's variables. Imports JAX."""

from __future__ import annotations

import itertools
import threading
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kerasgen import backend, fork_safety, freed_memory, huge_pages
from kerasgen.decoder import jax_layout
from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import TABLES, Weights
from kerasgen.generation.jax_engine import JaxEngine
from kerasgen.models import described, gguf_loading, tensorflow_views
from kerasgen.models.architectures import stored
from kerasgen.models.architectures.keras_weights import Place
from kerasgen.models.base import LanguageModel, WeightsDtype, computing_layers
from kerasgen.models.quantized_base import HALF, Held, half
from kerasgen.models.weights_dtype import resolved
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


def engine_of_files(place: Path, weights_dtype: WeightsDtype | None = None) -> JaxEngine | None:
    """Return the engine of a preset or of a GGUF file, made without Keras, or None where the model must be loaded.

    Args:
        place: of the files.
        weights_dtype: that kernels and the table of token embeddings are held in; None for float32.
    """
    decoder_parts: tuple[Tokenizer, DecoderConfig, Weights] | None
    weights_dtype = resolved(weights_dtype)
    prepare = prepared_in_half if weights_dtype == HALF else jax_layout.prepare
    if place.is_dir():
        decoder = stored.read(place, prepare)
        decoder_parts = None if decoder is None else (decoder.tokenizer, decoder.config, decoder.weights)
    else:
        decoder_parts = gguf_loading.decoder(place, prepare, in_half=weights_dtype == HALF)
    if decoder_parts is None:
        return None
    tokenizer, config, weights = decoder_parts
    freed_memory.give_back()
    fork_safety.begin(fork_safety.JAX)
    backend.keep_compiled()
    return JaxEngine(tokenizer, config, weights)


def prepared_in_half(weights: Weights) -> Weights:
    """Return what `jax_layout.prepare` does of weights whose kernels and table of tokens are rounded to bfloat16."""

    def rounded(part: Any) -> Any:
        return {
            name: half(array) if name in ("kernel", "tokens") and array.ndim == 2 else array
            for name, array in part.items()
        }

    def layers() -> Iterator[Any]:
        for layer in weights["layers"]:
            yield {name: rounded(part) if isinstance(part, dict) else part for name, part in layer.items()}

    around = {name: rounded(part) for name, part in weights.items() if name != "layers"}
    return jax_layout.prepare(around | {"layers": layers()})


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
    backend.keep_compiled()
    with _PREPARING:
        state, engines = state_of(model), _KEPT.setdefault(model.network, {})
        key = model.tokenizer.digest()
        if key not in engines:
            engines[key] = _Kept(JaxEngine(model.tokenizer, config_of(model), _taken(model)), state)
        elif not is_same(engines[key].state, state):
            engines[key].engine.replace(_taken(model))
            engines[key].state = state
        return engines[key].engine


def state_of(model: LanguageModel) -> tuple[Any, ...]:
    """Return a state that changes whenever a weight does.

    It is what stands for the numbers of each variable, on JAX and TensorFlow; where there is nothing, a checksum.
    """
    import keras

    variables = model.network.variables
    kind = keras.config.backend()
    if kind == "jax":
        from kerasgen.models import deferred_weights

        return tuple(deferred_weights.identity(variable) for variable in variables)
    states: list[Any] = [None] * len(variables)
    if kind == "tensorflow":
        from kerasgen.models import tensorflow_lending

        states = [tensorflow_lending.identity(variable) for variable in variables]
    return tuple(
        _checksum(variable) if known is None else known for variable, known in zip(variables, states, strict=True)
    )


def _checksum(variable: Any) -> tuple[int, int]:
    """Return what a variable's bytes come to, of which the same ones in another order come to something else."""
    import keras

    numbers = np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).reshape(-1).view(np.uint8)
    return zlib.crc32(numbers.data), int(numbers[: len(numbers) // 4 * 4].view(np.uint32).sum(dtype=np.uint64))


def is_same(state: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    """Return whether two answers of `state_of` are of the same weights."""
    if state is None or len(state) != len(other):
        return False
    return all(a is b or (isinstance(a, tuple) and a == b) for a, b in zip(state, other, strict=True))


def prepare(model: LanguageModel) -> Weights:
    """Return a known model's weights as JAX computes with them, adapters merged."""
    return jax_layout.prepare(described.weights_of(model))


def _taken(model: LanguageModel) -> Weights:
    """Return what `prepare` does, in the place of the variables' own numbers.

    The variables of kernels and tables let go of theirs, part by part: both would be the model twice in memory. A table
    lies for both alike, so the engine takes the variable's array itself. Who asks a variable for its value gets it back
    (`deferred_weights.Lent`, `tensorflow_lending`), as a copy, for a training step may overwrite what a variable holds.
    A variable of TensorFlow that a traced graph reads lets go of nothing, and its kernel is there twice.
    """
    import keras

    from kerasgen.models import deferred_weights

    config = config_of(model)
    held: list[tuple[Place, Any, Any]] = []
    is_jax, is_tensorflow = (keras.config.backend() == name for name in ("jax", "tensorflow"))
    lend_one: Callable[..., Any] = deferred_weights.lend
    empty: huge_pages.Empty = huge_pages.empty
    if is_tensorflow:
        from kerasgen.models import tensorflow_lending

        lend_one, empty = tensorflow_lending.lend, tensorflow_lending.empty

    def take(places: Iterable[Place]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for place in places:
            variable = place.variable.variable if isinstance(place.variable, Held) else place.variable
            is_variable = isinstance(variable, keras.Variable) and len(variable.shape) > 1
            if is_jax and is_variable and variable.dtype in ("float32", HALF):
                value = variable.value
                held.append((place, variable, value))
                if place.names[0] in TABLES and len(value.sharding.device_set) == 1:
                    found[place.names[0]] = value
                    continue
            numbers = None
            if is_tensorflow and is_variable and variable.dtype in ("float32", HALF):
                seen = tensorflow_views.view(variable)
                if seen is not None and place.names[0] not in TABLES:
                    held.append((place, variable, seen))
                if seen is not None and variable.dtype == "float32":
                    numbers = seen.array
                if numbers is not None and place.names[0] in TABLES:
                    found[place.names[0]] = jax.device_put(numbers)  # that is TensorFlow's buffer itself
                    continue
            found |= place.read(as_held=True, copy=len(place.shapes[0]) == 1, numbers=numbers)
        return found

    def lend(restored: Callable[[str], Any]) -> None:
        while held:
            place, variable, value = held.pop()
            lend_one(variable, value, _joined(place, restored))

    def layers() -> Iterator[Any]:
        of_layers = (place for place in described.places_of(model) if place.names[0].startswith("layers."))
        for _, places in itertools.groupby(of_layers, lambda place: place.names[0].split(".")[1]):
            yield next(iter(decoder_weights.nested(take(places))["layers"]))

    def after_layer(index: int, prepared: Weights) -> None:
        lend(lambda name: jax_layout.restored(prepared, config, index, name.split(".", 2)[2]))
        freed_memory.give_back()  # the next layer's new arrays lie in pages of their own, not where these were

    def after_tables(prepared: Weights) -> None:
        around.clear()
        lend(lambda name: jax_layout.restored_table(prepared, name))

    around = decoder_weights.nested(
        take(place for place in described.places_of(model) if not place.names[0].startswith("layers."))
    )
    around["layers"] = layers()
    weights = jax_layout.prepare(around, after_layer, after_tables, empty)
    freed_memory.give_back()
    return weights


def _joined(place: Place, restored: Callable[[str], Any]) -> Callable[[], Any]:
    def make() -> Any:
        joined = place.joined({name: restored(name) for name in place.names})
        return place.variable.laid_out(joined) if isinstance(place.variable, Held) else joined

    return make
