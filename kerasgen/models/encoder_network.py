"""An encoder's weights in Keras layers, and the forward pass over them. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kerasgen.decoder.arithmetic import activate
from kerasgen.encoder import forward, weights
from kerasgen.encoder.config import EncoderConfig, from_json, to_json
from kerasgen.models.container import Scale
from kerasgen.models.keras_decoder import bias_of, scale_of

Weights = dict[str, npt.NDArray[Any]]


@keras.saving.register_keras_serializable(package="kerasgen")
class EncoderNetwork(keras.Model):  # type: ignore[misc]
    """The Keras variables of an encoder by the names of its description.

    Called with a mapping of `token_ids`, `positions` and `segment_ids`, each int32 `(batch, length)` as
    `kerasgen.encoder.forward` takes them, it returns logits, float32 `(batch, length, vocabulary_size)`.

    Args:
        config: the description.
        initializer_range: standard deviation of new kernels and tables before others are assigned; 0 for zeros.
        seed: of that noise.
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        initializer_range: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(name=f"{config.architecture.replace('-', '_')}_encoder")
        self.config = config
        self.preprocessor = None
        places: dict[str, Any] = {}
        for index, (part, shape) in enumerate(weights.parts(config)):
            noise = keras.initializers.RandomNormal(stddev=initializer_range, seed=seed + index)
            places[part] = self._layer(part, shape, noise if initializer_range else "zeros")
        self.held = [place for place in places.values() if isinstance(place, keras.layers.Layer)]
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout", seed=seed)
        object.__setattr__(self, "places", places)
        self.built = True

    def _layer(self, part: str, shape: tuple[int, ...], initializer: Any) -> Any:
        name = part.replace(".", "_")
        if part == "head.bias":
            return self.add_weight(name=name, shape=shape, initializer="zeros")
        if part in weights.TABLES:
            table = keras.layers.Embedding(*shape, embeddings_initializer=initializer, name=name)
            table.build()
            return table
        if weights.is_norm(part):
            return Scale(shape[0], True, name=name)
        dense = keras.layers.Dense(shape[1], kernel_initializer=initializer, name=name)
        dense.build((None, shape[0]))
        return dense

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make such a model, as JSON could hold them."""
        return {"config": to_json(self.config)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Self:
        """Return the model that `get_config` tells of."""
        return cls(from_json(config["config"]))

    def build(self, input_shape: Any = None) -> None:
        """Do nothing: the weights are made with the model."""
        self.built = True

    def hidden(self, inputs: Mapping[str, Any], *, training: bool | None = None) -> Any:
        """Return the head's states, float `(batch, length, embedding_dim)`."""
        hooks = KerasHooks(self, training=bool(training))
        hidden = forward.hidden_states(
            self.config, hooks, inputs["token_ids"], inputs["positions"], inputs["segment_ids"]
        )
        return forward.head_states(hooks, hidden)

    def logits_at(self, inputs: Mapping[str, Any], places: Any) -> Any:
        """Return the logits of some places, float32 `(batch, places, vocabulary_size)`.

        Args:
            inputs: as `call` takes them.
            places: int32 `(batch, places)`; positions in each row.
        """
        hooks = KerasHooks(self, training=False)
        hidden = forward.hidden_states(
            self.config, hooks, inputs["token_ids"], inputs["positions"], inputs["segment_ids"]
        )
        taken = ops.take_along_axis(hidden, ops.expand_dims(places, -1), axis=1)
        return self._logits(forward.head_states(hooks, taken))

    def _logits(self, states: Any) -> Any:
        table = ops.cast(ops.convert_to_tensor(self.places["embedding.tokens"].embeddings), "float32")
        bias = ops.cast(ops.convert_to_tensor(self.places["head.bias"]), "float32")
        return ops.matmul(ops.cast(states, "float32"), ops.transpose(table)) + bias

    def output_table(self) -> Any:
        """Return the table whose product with the head's states and eight ones is the logits.

        It is float32 `(vocabulary_size, embedding_dim + 8)`, with the biases as a column: products of an odd width are
        slower.
        """
        table = ops.cast(ops.convert_to_tensor(self.places["embedding.tokens"].embeddings), "float32")
        bias = ops.expand_dims(ops.cast(ops.convert_to_tensor(self.places["head.bias"]), "float32"), 1)
        return ops.concatenate([table, ops.pad(bias, ((0, 0), (0, 7)))], axis=1)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return the logits, float32 `(batch, length, vocabulary_size)`."""
        return self._logits(self.hidden(inputs, training=training))

    def blocks(self) -> list[dict[str, Any]]:
        """Return the Keras layers of each block by their roles."""
        found: list[dict[str, Any]] = [{} for _ in range(self.config.stored_layers)]
        for part, place in self.places.items():
            if part.startswith("layers."):
                _, index, role = part.split(".")
                found[int(index)][role] = place
        return found

    @property
    def max_sequence_length(self) -> int:
        """Positions that the model knows."""
        return self.config.max_positions

    def read(self) -> Weights:
        """Return the weights by their full names as float32 NumPy arrays, adapters added in. They are copies."""
        named: Weights = {}
        for part, place in self.places.items():
            if part == "head.bias":
                named[part] = np.array(place, np.float32)
            elif part in weights.TABLES:
                named[part] = np.array(place.embeddings, np.float32)
            elif weights.is_norm(part):
                named |= {f"{part}.scale": np.array(scale_of(place)), f"{part}.bias": np.array(bias_of(place))}
            else:
                kernel = np.array(ops.convert_to_numpy(place.kernel), np.float32)
                named |= {f"{part}.kernel": kernel, f"{part}.bias": np.array(place.bias)}
        return named

    def assign(self, named: Mapping[str, Any]) -> None:
        """Take weights by their full names, of the shapes of `kerasgen.encoder.weights.shapes`."""
        for part, place in self.places.items():
            if part == "head.bias":
                place.assign(named[part])
            elif part in weights.TABLES:
                place.embeddings.assign(named[part])
            elif weights.is_norm(part):
                scale_of(place).assign(named[f"{part}.scale"])
                bias_of(place).assign(named[f"{part}.bias"])
            else:
                place.kernel.assign(named[f"{part}.kernel"])
                place.bias.assign(named[f"{part}.bias"])


class KerasHooks:
    """Computes an encoder's parts by Keras layers, adapters and dtype policies included.

    Args:
        network: whose layers they are.
        training: whether dropout is on.
    """

    xp = ops

    def __init__(self, network: EncoderNetwork, *, training: bool) -> None:
        self.network, self.training = network, training
        self.places: Mapping[str, Any] = network.places

    def lookup(self, part: str, ids: Any) -> Any:
        """Return the rows of a table."""
        return self.places[part](ids)

    def project(self, part: str, x: Any) -> Any:
        """Return a projection with its bias."""
        return self.places[part](x)

    def norm(self, part: str, x: Any) -> Any:
        """Return a layer norm, computed in float32."""
        config = self.network.config
        epsilon = config.head_norm_epsilon if part == "head.norm" else config.norm_epsilon
        wide = ops.cast(x, "float32")
        wide = wide - ops.mean(wide, axis=-1, keepdims=True)
        factor = ops.rsqrt(ops.mean(ops.square(wide), axis=-1, keepdims=True) + epsilon)
        place = self.places[part]
        normed = wide * factor * ops.cast(scale_of(place), "float32") + ops.cast(bias_of(place), "float32")
        return ops.cast(normed, x.dtype)

    def activate(self, x: Any, *, head: bool) -> Any:
        """Return the activation."""
        config = self.network.config
        return activate(ops, x, config.head_activation if head else config.activation)

    def drop(self, x: Any) -> Any:
        """Return dropout while training."""
        return self.network.dropout(x, training=True) if self.training and self.network.config.dropout else x

    def whole(self, part: str) -> Any:
        """Return a table as it is, in the type that is computed with."""
        table = ops.convert_to_tensor(self.places[part].embeddings)
        return ops.cast(table, self.places[part].compute_dtype)
