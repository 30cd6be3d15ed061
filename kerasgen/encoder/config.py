"""The description of an encoder with a masked language model's head. Imports the standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kerasgen.errors import ModelArgumentError, ModelFormatError

Activation: TypeAlias = Literal["gelu", "gelu_approximate", "relu"]
_ACTIVATIONS = ("gelu", "gelu_approximate", "relu")
_SIZES = (
    "vocabulary_size",
    "num_layers",
    "num_heads",
    "hidden_dim",
    "intermediate_dim",
    "embedding_dim",
    "max_positions",
    "num_groups",
    "layers_per_group",
)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Description of an encoder: post-norm blocks over normed embeddings, and a head whose table is the tokens'.

    Args:
        architecture: the name of its table of weights, transformers' `model_type`.
        vocabulary_size: rows of the table of token embeddings.
        num_layers: how many blocks a text goes through.
        num_heads: of each attention.
        hidden_dim: width of the hidden states.
        intermediate_dim: width within the feed-forward part.
        embedding_dim: width of the embeddings.
        max_positions: tokens of a text at most, its start and end tokens among them.
        num_segments: rows of the table of token types, of which the first is added to every token; 0 for no table.
        projects_embeddings: whether a projection leads from the embeddings to the hidden states.
        num_groups: groups of consecutive blocks that share their weights; as many as blocks where none do.
        layers_per_group: blocks of one group, one after another, which its repetitions share.
        activation: within the feed-forward part.
        norm_epsilon: of the blocks' norms.
        head_activation: within the head.
        head_norm_epsilon: of the head's norm.
        relative_buckets: half the rows of the table of relative positions (DeBERTa), or 0 for learned positions.
        dropout: the share of numbers that training leaves out.

    Raises:
        ModelArgumentError: the sizes don't fit each other.
    """

    architecture: str
    vocabulary_size: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    intermediate_dim: int
    embedding_dim: int
    max_positions: int
    num_segments: int = 0
    projects_embeddings: bool = False
    num_groups: int
    layers_per_group: int = 1
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-12
    head_activation: Activation = "gelu"
    head_norm_epsilon: float = 1e-12
    relative_buckets: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelArgumentError(f"{name} must be a whole number from 1. Received: {value!r}.")
        if self.hidden_dim % self.num_heads:
            raise ModelArgumentError(
                f"hidden_dim must be a multiple of num_heads. Received: {self.hidden_dim} and {self.num_heads}."
            )
        if self.num_layers % self.num_groups:
            raise ModelArgumentError(
                f"num_layers must be a multiple of num_groups. Received: {self.num_layers} and {self.num_groups}."
            )
        if self.embedding_dim != self.hidden_dim and not self.projects_embeddings:
            raise ModelArgumentError(
                f"Embeddings of another width than the hidden states ({self.embedding_dim} and {self.hidden_dim}) "
                "need a projection."
            )
        if not {self.activation, self.head_activation} <= set(_ACTIVATIONS):
            raise ModelArgumentError(
                f"An activation is one of {', '.join(_ACTIVATIONS)}. Received: {self.activation!r} and "
                f"{self.head_activation!r}."
            )

    @property
    def head_dim(self) -> int:
        """Numbers of an attention's head."""
        return self.hidden_dim // self.num_heads

    @property
    def stored_layers(self) -> int:
        """Number of blocks with weights of their own."""
        return self.num_groups * self.layers_per_group

    @property
    def schedule(self) -> tuple[int, ...]:
        """Which stored block each step of the computation goes through."""
        repetitions = self.num_layers // self.num_groups
        return tuple(
            group * self.layers_per_group + inner
            for group in range(self.num_groups)
            for _ in range(repetitions)
            for inner in range(self.layers_per_group)
        )


def to_json(config: EncoderConfig) -> dict[str, Any]:
    """Return a description as JSON can hold it."""
    return dataclasses.asdict(config)


def from_json(value: Any) -> EncoderConfig:
    """Return the description that `to_json` made this of.

    Raises:
        ModelFormatError: it is none, or one that can't be.
    """
    if not isinstance(value, Mapping):
        raise ModelFormatError(f"This is not a description of an encoder. Received: {value!r:.80}.")
    try:
        return EncoderConfig(**value)
    except (ModelArgumentError, TypeError) as cause:
        raise ModelFormatError(f"The description of the encoder can't be read: {cause}") from cause
