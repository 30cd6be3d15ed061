"""A masked language model as a TensorFlow graph that fills masks. Imports TensorFlow: import it late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgen.decoder.arithmetic import activate
from kerasgen.encoder import forward
from kerasgen.encoder.config import EncoderConfig
from kerasgen.exporters.tensorflow import namespace


class GraphHooks:
    """Computes an encoder's parts in TensorFlow, in float32; see `kerasgen.encoder.forward.Hooks`.

    Args:
        config: the description.
        weights: float32 arrays or variables by their full names.
    """

    xp: Any = namespace

    def __init__(self, config: EncoderConfig, weights: Mapping[str, Any]) -> None:
        self.config, self.weights = config, weights

    def lookup(self, part: str, ids: Any) -> Any:
        """Return the rows of a table."""
        return tf.gather(self.weights[part], ids)

    def project(self, part: str, x: Any) -> Any:
        """Return a projection with its bias."""
        return tf.matmul(x, self.weights[f"{part}.kernel"]) + self.weights[f"{part}.bias"]

    def norm(self, part: str, x: Any) -> Any:
        """Return a layer norm."""
        epsilon = self.config.head_norm_epsilon if part == "head.norm" else self.config.norm_epsilon
        x = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        factor = tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + epsilon)
        return x * factor * self.weights[f"{part}.scale"] + self.weights[f"{part}.bias"]

    def activate(self, x: Any, *, head: bool) -> Any:
        """Return the activation."""
        return activate(namespace, x, self.config.head_activation if head else self.config.activation)

    def drop(self, x: Any) -> Any:
        """Return `x`: nothing is trained here."""
        return x

    def whole(self, part: str) -> Any:
        """Return a table as it is."""
        return tf.convert_to_tensor(self.weights[part])


class FillModule(tf.Module):  # type: ignore[misc]
    """A masked language model whose signatures give the log-probabilities of what masks stand for.

    Args:
        config: the description.
        weights: float32 by their full names.
        ids: the tokenizer's, which are the first rows of the table; the others get no probability.
    """

    def __init__(self, config: EncoderConfig, weights: Mapping[str, Any], ids: int) -> None:
        super().__init__(name="fill")
        self.config, self.ids = config, ids
        self.held = {name: tf.Variable(value, trainable=False, name=name) for name, value in weights.items()}

    def fill(self, token_ids: Any, lengths: Any, places: Any) -> dict[str, Any]:
        """Return float32 `(batch, places, ids)` log-probabilities.

        Args:
            token_ids: int32 `(batch, length)`; what stands behind a text's own length is not seen.
            lengths: int32 `(batch,)`, tokens of each text.
            places: int32 `(batch, places)` of the masks.
        """
        hooks = GraphHooks(self.config, self.held)
        counted = tf.range(tf.shape(token_ids)[1])[None] + tf.zeros_like(token_ids)
        segments = tf.cast(counted < lengths[:, None], tf.int32)
        hidden = forward.hidden_states(self.config, hooks, token_ids, counted, segments)
        states = forward.head_states(hooks, tf.gather(hidden, places, batch_dims=1))
        table = tf.convert_to_tensor(self.held["embedding.tokens"])[: self.ids]
        logits = tf.matmul(states, table, transpose_b=True) + self.held["head.bias"][: self.ids]
        return {"log_probabilities": tf.nn.log_softmax(logits)}


def write_saved_model(
    module: FillModule, directory: Path, shapes: Mapping[str, tuple[int | None, int | None, int | None]]
) -> None:
    """Write a SavedModel with signatures of certain shapes.

    Args:
        module: the model.
        directory: where.
        shapes: batch, length and places of each signature by its name; None for any.
    """
    signatures = {
        name: tf.function(module.fill, autograph=False).get_concrete_function(
            token_ids=tf.TensorSpec((batch, length), tf.int32, "token_ids"),
            lengths=tf.TensorSpec((batch,), tf.int32, "lengths"),
            places=tf.TensorSpec((batch, places), tf.int32, "places"),
        )
        for name, (batch, length, places) in shapes.items()
    }
    tf.saved_model.save(module, str(directory), signatures)


def fill_lengths(positions: int, wanted: Sequence[int]) -> list[int]:
    """Return the lengths of signatures for a model of so many positions: the wanted ones below, and the last."""
    below = sorted({length for length in wanted if length < positions})
    return [*below, min(positions, max(wanted))]
