"""A decoder's weights in plain Keras layers, for what no class of KerasHub can hold. Imports Keras: import it late."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kerasgen.decoder import config_json
from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import TABLES, Weights
from kerasgen.errors import ModelError
from kerasgen.models import packed, quantized_base
from kerasgen.models.architectures.keras_weights import Place
from kerasgen.models.keras_decoder import KerasDecoder


class Scale(keras.layers.Layer):  # type: ignore[misc]
    """The weights of a norm.

    Args:
        size: features.
        has_bias: whether the norm adds one.
    """

    def __init__(self, size: int, has_bias: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.scale = self.add_weight(name="scale", shape=(size,), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(size,), initializer="zeros") if has_bias else None
        self.built = True


class ExpertKernels(keras.layers.Layer):  # type: ignore[misc]
    """The kernels of one projection of all experts.

    Args:
        shape: of the kernels, `(experts, in, out)`.
        has_bias: whether each has one.
        initializer: of the kernels.
    """

    def __init__(self, shape: tuple[int, ...], has_bias: bool, initializer: Any = "zeros", **settings: Any) -> None:
        super().__init__(**settings)
        experts, _, outputs = shape
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer)
        self.bias = self.add_weight(name="bias", shape=(experts, outputs), initializer="zeros") if has_bias else None
        self.built = True


@keras.saving.register_keras_serializable(package="kerasgen")
class Container(keras.Model):  # type: ignore[misc]
    """The Keras variables of a decoder by the names of its description; called as KerasHub's models are.

    Each projection is a `keras.layers.Dense`, each table a `keras.layers.Embedding`. Layers are named by their parts,
    such as `layers_3_query`, so that weights are found by name, and adapters and dtype policies are Keras's own.

    Args:
        config: the description.
        context_length: tokens that the model was made for, where its positions have no limit; None if that is unknown.
        initializer_range: standard deviation of the kernels and tables before others are assigned; 0 for zeros.
        seed: of that noise.
    """

    def __init__(
        self, config: DecoderConfig, *, context_length: int | None = None, initializer_range: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(name=f"{config.architecture}_decoder")
        self.config, self.context_length = config, context_length
        self.preprocessor = None
        places: dict[str, Any] = {}
        shapes = decoder_weights.shapes(config)
        held: list[Any] = []
        for index, name in enumerate(shapes):
            part = name if name in TABLES or name.endswith(".sinks") else name.rpartition(".")[0]
            if part in places:
                continue
            noise = keras.initializers.RandomNormal(stddev=initializer_range, seed=seed + index)
            initializer: Any = noise if initializer_range else "zeros"
            places[part] = self._layer(part, part.replace(".", "_"), shapes, initializer)  # torch takes no dots
            held.append(places[part])
        self.held = held  # what Keras tracks, in the order of the computation
        object.__setattr__(self, "decoder", KerasDecoder(config, decoder_weights.nested(places)))
        self.built = True

    def _layer(self, part: str, name: str, shapes: Mapping[str, tuple[int, ...]], initializer: Any) -> Any:
        if part.endswith(".sinks"):
            return self.add_weight(name=name, shape=shapes[part], initializer="zeros")
        if part in TABLES:
            rows, width = shapes[part]
            table = keras.layers.Embedding(rows, width, embeddings_initializer=initializer, name=name)
            table.build()
            return table
        if f"{part}.scale" in shapes:
            return Scale(shapes[f"{part}.scale"][0], f"{part}.bias" in shapes, name=name)
        has_bias = f"{part}.bias" in shapes
        if f"{part}.kernel" not in shapes:  # a tied head with biases
            return Scale(shapes[f"{part}.bias"][0], True, name=name)
        if len(shapes[f"{part}.kernel"]) == 3:
            return ExpertKernels(shapes[f"{part}.kernel"], has_bias, initializer, name=name)
        inputs, outputs = shapes[f"{part}.kernel"]
        dense = keras.layers.Dense(outputs, use_bias=has_bias, kernel_initializer=initializer, name=name)
        dense.build((None, inputs))
        return dense

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make such a model, as JSON could hold them."""
        return {"config": config_json.to_json(self.config), "context_length": self.context_length}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Self:
        """Return the model that `get_config` tells of."""
        return cls(config_json.from_json(config["config"]), context_length=config["context_length"])

    def quantize(self, mode: Any = None, **settings: Any) -> None:
        """Refuse: codes are not what the forward pass of this model computes with.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"A model that KerasHub has no class for can't be quantized in place. Received: {mode!r}. Export it "
            "with the exporter 'tflite' and its `quantize=`."
        )

    def build(self, input_shape: Any = None) -> None:
        """Do nothing: the weights are made with the model."""
        self.built = True

    @property
    def max_sequence_length(self) -> int | None:
        """Positions that the model knows, or None where it has no limit."""
        return self.config.max_sequence_length

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return logits, `(batch, sequence_length, vocabulary_size)`.

        Args:
            inputs: `token_ids` and `padding_mask`, int `(batch, sequence_length)`, as KerasHub's models take them.
            training: changes nothing; there is no dropout.
        """
        token_ids = ops.cast(inputs["token_ids"], "int32")
        segment_ids = ops.cast(inputs["padding_mask"], "int32")
        positions = ops.broadcast_to(ops.arange(ops.shape(token_ids)[1]), ops.shape(token_ids))
        given = {"token_ids": token_ids, "positions": ops.cast(positions, "int32"), "segment_ids": segment_ids}
        hidden = packed.hidden_states(self.decoder, given, training=False)
        hidden, table, cap, _ = packed.output(self.decoder, hidden)
        logits = ops.cast(ops.matmul(hidden, ops.transpose(ops.cast(table, hidden.dtype))), "float32")
        return logits if cap is None else cap * ops.tanh(logits / cap)

    def variables_by_name(self) -> dict[str, Any]:
        """Return the Keras variables by the full names of `kerasgen.decoder.weights`, adapters left out."""
        parts = decoder_weights.flat(self.decoder.parts)
        return {name: _variable(parts, name) for name in decoder_weights.shapes(self.config)}

    def read(self) -> Weights:
        """Return the weights as float32 NumPy arrays, adapters added in. They are copies."""
        parts = decoder_weights.flat(self.decoder.parts)

        def array(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
            part, _, leaf = name.rpartition(".")
            found = parts[part].kernel if leaf == "kernel" else _variable(parts, name)
            numbers = found if isinstance(found, quantized_base.Held) else ops.convert_to_numpy(found)
            return np.array(numbers, dtype=np.float32).reshape(shape)

        return decoder_weights.build(self.config, array)

    def places(self) -> Iterator[Place]:
        """Yield where the weights lie: a variable each, or the sum of a kernel and its adapter."""
        parts = decoder_weights.flat(self.decoder.parts)
        for name, shape in decoder_weights.shapes(self.config).items():
            part, _, leaf = name.rpartition(".")
            held = quantized_base.attribute(parts[part], "kernel") if leaf == "kernel" else _variable(parts, name)
            yield Place((name,), (shape,), held, heads_first=False)

    def assign(self, weights: Weights) -> None:
        """Take these weights.

        Raises:
            ModelFormatError: they are not those that the description implies.
        """
        decoder_weights.check(weights, self.config)
        given = decoder_weights.flat(weights)
        self.fill(lambda name, shape: given[name])

    def fill(self, take: Callable[[str, tuple[int, ...]], Any]) -> None:
        """Take the weights one at a time, each as `take` gives it for its full name and its shape."""
        for name, variable in self.variables_by_name().items():
            variable.assign(take(name, tuple(variable.shape)))

    def count_params(self) -> int:
        """Return how many numbers the weights are."""
        return sum(math.prod(variable.shape) for variable in self.weights)


def _variable(parts: Mapping[str, Any], name: str) -> Any:
    if name in TABLES:
        return quantized_base.attribute(parts[name], "embeddings")
    if name in parts:
        return parts[name]
    holder, _, leaf = name.rpartition(".")
    layer = parts[holder]
    return layer._kernel if isinstance(layer, keras.layers.Dense) and leaf == "kernel" else getattr(layer, leaf)
