"""What a decoder family is: a shape, weights under common names, and the names that other formats give them.

Every family here is a pre-norm transformer decoder with learned positions, biases and an output layer tied to the
embeddings. Imports the standard library only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, LearnedPositions, Norm
from kerasgen.decoder.weights import Weights

Activation: TypeAlias = Literal["gelu_approximate", "relu"]


@dataclass(frozen=True)
class DecoderShape:
    """The numbers that, with the weights, make a decoder.

    Args:
        family: its name, such as `"gpt2"`.
        vocabulary_size: rows of the embedding table.
        num_layers: transformer blocks.
        num_heads: attention heads, which divide `hidden_dim`.
        hidden_dim: width of the hidden states.
        intermediate_dim: width inside the feed-forward part.
        max_sequence_length: positions that the model knows.
        activation: of the feed-forward part; `"gelu_approximate"` is the tanh form.
        layer_norm_epsilon: added to the variance.
    """

    family: str
    vocabulary_size: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    intermediate_dim: int
    max_sequence_length: int
    activation: Activation
    layer_norm_epsilon: float

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_dim // self.num_heads

    @property
    def config(self) -> DecoderConfig:
        """The same as a decoder's description."""
        heads = (self.num_heads, self.num_heads, self.head_dim)
        return DecoderConfig(
            architecture=self.family,
            vocabulary_size=self.vocabulary_size,
            num_layers=self.num_layers,
            hidden_dim=self.hidden_dim,
            max_sequence_length=self.max_sequence_length,
            attention=Attention(*heads, query_bias=True, key_bias=True, value_bias=True, output_bias=True),
            feedforward=FeedForward(self.intermediate_dim, self.activation, up_bias=True, down_bias=True),
            norm=Norm(epsilon=self.layer_norm_epsilon),
            positions=LearnedPositions(),
        )


class DecoderLayer(NamedTuple):
    """The weights of one transformer block; kernels are `(in, out)`.

    Args:
        attention_gamma: `(hidden_dim,)`, the scale of the norm before attention.
        attention_beta: `(hidden_dim,)`.
        qkv_kernel: `(hidden_dim, 3 * hidden_dim)`; queries, keys and values side by side, each head by head.
        qkv_bias: `(3 * hidden_dim,)`.
        output_kernel: `(hidden_dim, hidden_dim)`, from the heads side by side.
        output_bias: `(hidden_dim,)`.
        feedforward_gamma: `(hidden_dim,)`, the scale of the norm before the feed-forward part.
        feedforward_beta: `(hidden_dim,)`.
        up_kernel: `(hidden_dim, intermediate_dim)`.
        up_bias: `(intermediate_dim,)`.
        down_kernel: `(intermediate_dim, hidden_dim)`.
        down_bias: `(hidden_dim,)`.
    """

    attention_gamma: Any
    attention_beta: Any
    qkv_kernel: Any
    qkv_bias: Any
    output_kernel: Any
    output_bias: Any
    feedforward_gamma: Any
    feedforward_beta: Any
    up_kernel: Any
    up_bias: Any
    down_kernel: Any
    down_bias: Any


class DecoderWeights(NamedTuple):
    """The weights of a decoder.

    Args:
        token_embedding: `(vocabulary_size, hidden_dim)`, the output layer too.
        position_embedding: `(max_sequence_length, hidden_dim)`.
        layers: the blocks in order.
        final_gamma: `(hidden_dim,)`, the scale of the last norm.
        final_beta: `(hidden_dim,)`.
    """

    token_embedding: Any
    position_embedding: Any
    layers: tuple[DecoderLayer, ...]
    final_gamma: Any
    final_beta: Any


class DecoderFamily(ABC):
    """One architecture. Instances hold no state.

    Attributes:
        name: as in `DecoderShape.family`, which is transformers' `model_type`.
        activation: of the feed-forward part.
        gguf_architecture: what llama.cpp calls it, or None where llama.cpp doesn't run it.
    """

    name: ClassVar[str]
    activation: ClassVar[Activation]
    gguf_architecture: ClassVar[str | None] = None

    def shape(self, causal_lm: Any) -> DecoderShape:
        """Return the shape of a KerasHub model of this family."""
        return self.shape_of(causal_lm.backbone)

    def shape_of(self, backbone: Any) -> DecoderShape:
        """Return the shape of a KerasHub backbone of this family."""
        return DecoderShape(
            family=self.name,
            vocabulary_size=int(backbone.vocabulary_size),
            num_layers=int(backbone.num_layers),
            num_heads=int(backbone.num_heads),
            hidden_dim=int(backbone.hidden_dim),
            intermediate_dim=int(backbone.intermediate_dim),
            max_sequence_length=int(backbone.max_sequence_length),
            activation=self.activation,
            layer_norm_epsilon=float(backbone.layer_norm.epsilon),
        )

    def has_its_activation(self, backbone: Any) -> bool:
        """Return whether a KerasHub backbone's layers have the activation of this family: a person may change it."""
        return all(
            getattr(layer._feedforward_intermediate_dense.activation, "__name__", None) == self.activation
            for layer in backbone.transformer_layers
            if hasattr(layer, "_feedforward_intermediate_dense")
        )

    def weights(self, causal_lm: Any) -> DecoderWeights:
        """Return the weights of a KerasHub model as float32 NumPy arrays, adapters added in. They are copies."""
        from kerasgen.models.families.keras_layers import read

        return read(causal_lm.backbone, self.position_table(causal_lm.backbone))

    @abstractmethod
    def position_table(self, backbone: Any) -> Any:
        """Return the Keras variable of the position embeddings, `(max_sequence_length, hidden_dim)`."""

    @abstractmethod
    def transformers_config(self, shape: DecoderShape, *, start: int, end: int, pad: int) -> dict[str, Any]:
        """Return the `config.json` of this model in transformers format.

        Args:
            shape: of the model.
            start: the id of the start token.
            end: the id of the end token.
            pad: the id of the padding token.
        """

    @abstractmethod
    def transformers_tensors(self, weights: DecoderWeights) -> Mapping[str, Any]:
        """Return the tensors of this model by their names and in their layouts of transformers, as NumPy arrays."""


ArrayMap: TypeAlias = Callable[[Any], Any]


def map_weights(function: ArrayMap, weights: DecoderWeights) -> DecoderWeights:
    """Return the weights with `function` applied to each array."""
    return DecoderWeights(
        function(weights.token_embedding),
        function(weights.position_embedding),
        tuple(DecoderLayer(*map(function, layer)) for layer in weights.layers),
        function(weights.final_gamma),
        function(weights.final_beta),
    )


def named(weights: DecoderWeights) -> Weights:
    """Return NumPy weights by the names of `kerasgen.decoder.weights`; they are views."""
    return {
        "embedding": {"tokens": weights.token_embedding, "positions": weights.position_embedding},
        "layers": list(map(_named_layer, weights.layers)),
        "final_norm": {"scale": weights.final_gamma, "bias": weights.final_beta},
    }


def _named_layer(layer: DecoderLayer) -> dict[str, Any]:
    width = layer.qkv_kernel.shape[0]
    parts = {role: slice(place * width, (place + 1) * width) for place, role in enumerate(("query", "key", "value"))}
    return {
        "attention_norm": {"scale": layer.attention_gamma, "bias": layer.attention_beta},
        **{role: {"kernel": layer.qkv_kernel[:, of], "bias": layer.qkv_bias[of]} for role, of in parts.items()},
        "output": {"kernel": layer.output_kernel, "bias": layer.output_bias},
        "feedforward_norm": {"scale": layer.feedforward_gamma, "bias": layer.feedforward_beta},
        "up": {"kernel": layer.up_kernel, "bias": layer.up_bias},
        "down": {"kernel": layer.down_kernel, "bias": layer.down_bias},
    }
