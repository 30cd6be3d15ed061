"""The description of a decoder-only transformer, as frozen data. Imports the standard library only.

`DecoderConfig` says everything about a decoder but its weights, whose names and shapes `kerasgen.decoder.weights`
derives from it. Every trait is from a closed set, so that executors can resolve it when a graph is traced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from kerasgen.decoder.rotary_scaling import LongRopeScaling, RotaryScaling, require
from kerasgen.errors import ModelArgumentError

NormKind: TypeAlias = Literal["layer_norm", "rms", "rms_plus_one"]
NormPlacement: TypeAlias = Literal["before", "before_and_after", "after", "after_sum", "parallel", "parallel_shared"]
_MOST_LAYERS = 10_000
"""Each layer has names and shapes of its own, so a number out of a damaged file must not be taken on trust."""

Activation: TypeAlias = Literal["gelu", "gelu_approximate", "relu", "relu_squared", "silu"]


@dataclass(frozen=True)
class Norm:
    """A normalization along the features.

    Args:
        kind: `"layer_norm"` subtracts the mean and divides by the standard deviation; `"rms"` divides by the root of
            the mean square; `"rms_plus_one"` does so and multiplies by 1 + scale, as Gemma's.
        epsilon: added to the variance or the mean square.
        bias: whether a bias is added, which only a layer norm has.
    """

    kind: NormKind = "layer_norm"
    epsilon: float = 1e-5
    bias: bool = True

    def __post_init__(self) -> None:
        _require_one_of("kind", self.kind, NormKind)
        require("epsilon", self.epsilon, self.epsilon >= 0, "at least 0")
        if self.kind != "layer_norm" and self.bias:
            raise ModelArgumentError(f"A norm of the kind {self.kind!r} has no bias. Say `bias=False`.")


@dataclass(frozen=True)
class LearnedPositions:
    """A table of position embeddings, added to those of the tokens.

    Args:
        offset: rows that other formats' tables hold before that of the first position (OPT's 2). The weights here
            have no such rows.
    """

    offset: int = 0

    def __post_init__(self) -> None:
        require("offset", self.offset, self.offset >= 0, "at least 0")


@dataclass(frozen=True)
class RotaryPositions:
    """Queries and keys rotated by their position (RoPE).

    Args:
        base: of the wavelengths; transformers' `rope_theta`.
        fraction: of a head's dimensions that are rotated, the first ones.
        interleaved: whether neighbours make a pair (GPT-J), or the two halves do (Llama as transformers keeps it).
        scaling: how texts longer than those of training are reached; None for not at all.
    """

    base: float = 10000.0
    fraction: float = 1.0
    interleaved: bool = False
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        require("base", self.base, self.base > 0, "above 0")
        require("fraction", self.fraction, 0 < self.fraction <= 1, "above 0 and at most 1")
        if self.scaling is not None and not isinstance(self.scaling, get_args(RotaryScaling)):
            names = ", ".join(kind.__name__ for kind in get_args(RotaryScaling))
            raise ModelArgumentError(f"`scaling` must be one of {names}, or None. Received: {self.scaling!r}.")

    def rotated_dim(self, head_dim: int) -> int:
        """Return how many of a head's dimensions are rotated."""
        return int(head_dim * self.fraction)


@dataclass(frozen=True)
class AlibiPositions:
    """Attention scores lowered in proportion to the distance, by a slope of each head (ALiBi).

    Args:
        scale: multiplies the slopes; Falcon's is that of its attention scores, 1 elsewhere.
    """

    scale: float = 1.0


@dataclass(frozen=True)
class NoPositions:
    """Attention that isn't told where a token stands (NoPE), but by its causal mask."""


Positions: TypeAlias = LearnedPositions | RotaryPositions | AlibiPositions | NoPositions


@dataclass(frozen=True)
class Attention:
    """Causal self-attention.

    Args:
        num_query_heads: heads of queries.
        num_key_value_heads: heads of keys and values, which divides the former.
        head_dim: width of a head; `num_query_heads * head_dim` need not be the decoder's width.
        query_bias: whether the query projection adds one.
        key_bias: whether the key projection adds one.
        value_bias: whether the value projection adds one.
        output_bias: whether the output projection adds one.
        scale: multiplies the scores; None for `head_dim ** -0.5`.
        query_key_norm: norm of queries and keys before they are rotated, or None.
        query_key_norm_axis: whether that norm is of each head, or of all heads together (OLMo 2).
        soft_cap: scores become `soft_cap * tanh(score / soft_cap)`; None for no cap.
        windows: for each layer how many tokens a token sees, itself among them, or None for all; `()` is None for
            every layer.
        sinks: whether each head has a learned score that takes a share of the attention and gives nothing (GPT-OSS).
    """

    num_query_heads: int
    num_key_value_heads: int
    head_dim: int
    query_bias: bool = False
    key_bias: bool = False
    value_bias: bool = False
    output_bias: bool = False
    scale: float | None = None
    query_key_norm: Norm | None = None
    query_key_norm_axis: Literal["head", "all_heads"] = "head"
    soft_cap: float | None = None
    windows: tuple[int | None, ...] = ()
    sinks: bool = False

    def __post_init__(self) -> None:
        for name in ("num_query_heads", "num_key_value_heads", "head_dim"):
            _require_size(name, getattr(self, name))
        queries, others = self.num_query_heads, self.num_key_value_heads
        require("num_key_value_heads", others, queries % others == 0, f"a divisor of num_query_heads={queries}")
        if self.query_key_norm_axis not in ("head", "all_heads"):
            raise ModelArgumentError(
                f"`query_key_norm_axis` must be 'head' or 'all_heads'. Received: {self.query_key_norm_axis!r}."
            )
        if self.soft_cap is not None:
            require("soft_cap", self.soft_cap, self.soft_cap > 0, "above 0, or None")
        for window in self.windows:
            require("windows", window, window is None or window > 0, "numbers above 0, or None where all is seen")

    @property
    def query_dim(self) -> int:
        """Width of all query heads together."""
        return self.num_query_heads * self.head_dim

    @property
    def key_value_dim(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.num_key_value_heads * self.head_dim

    @property
    def score_scale(self) -> float:
        """Factor of the products of queries and keys."""
        return float(self.head_dim**-0.5) if self.scale is None else self.scale


@dataclass(frozen=True)
class Experts:
    """A mixture of feed-forward networks, of which a router takes a few for each token.

    The router's softmax is over all experts. Where the weights of the taken ones are made to sum to 1, that is the same
    as a softmax over the taken ones alone.

    Args:
        num_experts: how many there are.
        experts_per_token: how many a token goes through.
        normalize: whether the weights of the taken ones are made to sum to 1.
        router_bias: whether the router adds one.
        layers: for each layer whether it has experts rather than the plain network; `()` is every layer.
        intermediate_dim: width of one expert; None for that of the plain network.
        shared_dim: width of an expert that each token goes through besides, by a share of its own, which is the
            sigmoid of a product (Qwen 2's); 0 for none.
        router_loss: what training multiplies the loss of unbalanced routers with; 0 for none.
    """

    num_experts: int
    experts_per_token: int
    normalize: bool = True
    router_bias: bool = False
    layers: tuple[bool, ...] = ()
    intermediate_dim: int | None = None
    shared_dim: int = 0
    router_loss: float = 0.0

    def __post_init__(self) -> None:
        _require_size("num_experts", self.num_experts)
        if self.intermediate_dim is not None:
            _require_size("intermediate_dim", self.intermediate_dim)
        require("shared_dim", self.shared_dim, self.shared_dim >= 0, "at least 0")
        require("router_loss", self.router_loss, self.router_loss >= 0, "at least 0")
        taken = self.experts_per_token
        require("experts_per_token", taken, 0 < taken <= self.num_experts, f"from 1 to {self.num_experts}")


@dataclass(frozen=True)
class ClampedGate:
    """A gate of bounded values: `gate * sigmoid(alpha * gate) * (up + 1)` (GPT-OSS).

    Args:
        alpha: multiplies the gate within the sigmoid.
        limit: the most that the gate is, and the most that the other factor is in both directions, before that.
    """

    alpha: float = 1.702
    limit: float = 7.0

    def __post_init__(self) -> None:
        require("alpha", self.alpha, self.alpha > 0, "above 0")
        require("limit", self.limit, self.limit > 0, "above 0")


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward part: `down(activation(up(x)))`, or `down(activation(gate(x)) * up(x))`.

    Args:
        intermediate_dim: its width, and that of each expert where those don't say their own.
        activation: `"gelu_approximate"` is the tanh form, `"gelu"` the exact one; `"silu"` is Swish.
        gated: whether there is a gate.
        up_bias: whether `up`, and `gate`, add one.
        down_bias: whether `down` adds one.
        experts: None for one network.
        clamped_gate: in the place of `activation(gate) * up`, or None.
    """

    intermediate_dim: int
    activation: Activation
    gated: bool = False
    up_bias: bool = False
    down_bias: bool = False
    experts: Experts | None = None
    clamped_gate: ClampedGate | None = None

    def __post_init__(self) -> None:
        _require_size("intermediate_dim", self.intermediate_dim)
        if self.clamped_gate is not None and (not self.gated or self.activation != "silu"):
            raise ModelArgumentError("A `clamped_gate` needs a gated feed-forward part whose activation is 'silu'.")
        _require_one_of("activation", self.activation, Activation)


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer but for its weights.

    Args:
        architecture: its name, such as `"gpt2"`, which is transformers' `model_type`.
        vocabulary_size: rows of the embedding table.
        num_layers: transformer blocks, at most 10,000.
        hidden_dim: width of the hidden states.
        max_sequence_length: positions that the model knows, or None if it has no limit of its own.
        attention: what all blocks attend with.
        feedforward: what follows attention in each block, or stands beside it.
        norm: of every block, and the final one.
        positions: how a token is told where it stands.
        positions_by_layer: for each layer its own, where they differ (Gemma 3, SmolLM3); `()` is `positions` for all.
        norm_placement: where a block's norms stand. `"before"` each of its two parts; `"before_and_after"` each
            (Gemma 2); `"after"` each part, before the sum with what went in (OLMo 2); `"after_sum"` after that sum (the
            first transformer); `"parallel"`: attention and feed-forward read the same hidden states, each through a
            norm of its own (GPT-NeoX); `"parallel_shared"`: through one norm (Falcon 7B, Phi).
        embedding_scale: multiplies what is looked up.
        embedding_norm: norm of the embeddings, or None.
        final_norm: whether the last hidden states are normed.
        tied_head: whether the output layer is the embedding table.
        head_bias: whether the output layer adds one.
        logit_scale: multiplies the logits.
        logit_soft_cap: logits become `cap * tanh(logit / cap)`; None for no cap.
        residual_scale: multiplies what each part of a block adds.
    """

    architecture: str
    vocabulary_size: int
    num_layers: int
    hidden_dim: int
    max_sequence_length: int | None
    attention: Attention
    feedforward: FeedForward
    norm: Norm
    positions: Positions
    positions_by_layer: tuple[Positions, ...] = ()
    norm_placement: NormPlacement = "before"
    embedding_scale: float = 1.0
    embedding_norm: Norm | None = None
    final_norm: bool = True
    tied_head: bool = True
    head_bias: bool = False
    logit_scale: float = 1.0
    logit_soft_cap: float | None = None
    residual_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "num_layers", "hidden_dim"):
            _require_size(name, getattr(self, name))
        require("num_layers", self.num_layers, self.num_layers <= _MOST_LAYERS, f"at most {_MOST_LAYERS:,}")
        _require_one_of("norm_placement", self.norm_placement, NormPlacement)
        if self.max_sequence_length is not None:
            _require_size("max_sequence_length", self.max_sequence_length)
        elif isinstance(self.positions, LearnedPositions):
            raise ModelArgumentError("A decoder with learned positions has a `max_sequence_length`. Received: None.")
        if self.logit_soft_cap is not None:
            require("logit_soft_cap", self.logit_soft_cap, self.logit_soft_cap > 0, "above 0, or None")
        by_layer = {
            "attention.windows": self.attention.windows,
            "positions_by_layer": self.positions_by_layer,
            "feedforward.experts.layers": self.feedforward.experts.layers if self.feedforward.experts else (),
        }
        for name, values in by_layer.items():
            fits = len(values) in (0, self.num_layers)
            require(name, len(values), fits, f"empty, or of one value for each of the {self.num_layers} layers")
        for positions in (self.positions, *self.positions_by_layer):
            self._check_positions(positions)

    def _check_positions(self, positions: Any) -> None:
        if not isinstance(positions, get_args(Positions)):
            names = ", ".join(kind.__name__ for kind in get_args(Positions))
            raise ModelArgumentError(f"`positions` must be one of {names}. Received: {positions!r}.")
        if isinstance(positions, LearnedPositions) and self.positions_by_layer:
            raise ModelArgumentError(
                "Learned positions are added to the embeddings, for all layers. Leave out `positions_by_layer`."
            )
        if isinstance(positions, RotaryPositions):
            rotated = positions.rotated_dim(self.attention.head_dim)
            require("positions.fraction", positions.fraction, rotated > 0 and rotated % 2 == 0, "of an even dimension")
            if isinstance(positions.scaling, LongRopeScaling):
                count = len(positions.scaling.short_factors)
                require("short_factors", count, 2 * count == rotated, f"one for each of {rotated // 2} frequencies")

    def window(self, layer: int) -> int | None:
        """Return how many tokens a token of this layer sees, or None for all."""
        return self.attention.windows[layer] if self.attention.windows else None

    def positions_of(self, layer: int) -> Positions:
        """Return how this layer is told where a token stands."""
        return self.positions_by_layer[layer] if self.positions_by_layer else self.positions

    def has_experts(self, layer: int) -> bool:
        """Return whether this layer's feed-forward part is a mixture of experts."""
        experts = self.feedforward.experts
        return experts is not None and (not experts.layers or experts.layers[layer])


def _require_size(name: str, value: Any) -> None:
    is_size = isinstance(value, int) and not isinstance(value, bool) and value > 0
    require(name, value, is_size, "a whole number above 0")


def _require_one_of(name: str, value: Any, kinds: Any) -> None:
    require(name, value, value in get_args(kinds), f"one of {', '.join(map(repr, get_args(kinds)))}")
