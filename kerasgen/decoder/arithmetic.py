"""Rules that executors share: norms, activations, soft caps and attention weights, over an array namespace.

Each function takes an array namespace `xp` first, which has NumPy's names (`mean`, `square`, `maximum`, `exp`, `max`,
`sum`, `tanh`, `where`) and `rsqrt`, `gelu`, `relu`, `silu` as `keras.ops` calls them, and the axis of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import Activation, Experts, FeedForward, Norm


def normalize(
    xp: Any,
    x: Any,
    norm: Norm,
    weights: Mapping[str, Any],
    axis: int | tuple[int, ...] = -1,
    *,
    scale_first: bool = False,
) -> Any:
    """Return `x` normalized along an axis.

    Args:
        xp: the array namespace.
        x: of any shape.
        norm: how.
        weights: `scale` and perhaps `bias`, in shapes that broadcast to `x`.
        axis: of the features, or several axes of them.
        scale_first: whether the scale multiplies what `x` is multiplied with, rather than their product: the same but
            for its last bits.
    """
    if norm.kind == "layer_norm":
        x = x - xp.mean(x, axis=axis, keepdims=True)
    factor = xp.rsqrt(xp.mean(xp.square(x), axis=axis, keepdims=True) + norm.epsilon)
    scale = 1 + weights["scale"] if norm.kind == "rms_plus_one" else weights["scale"]
    x = x * (factor * scale) if scale_first else x * factor * scale
    return x + weights["bias"] if norm.bias else x


def activate(xp: Any, x: Any, activation: Activation) -> Any:
    """Return the activation of `x`."""
    if activation == "relu":
        return xp.relu(x)
    if activation == "relu_squared":
        return xp.square(xp.relu(x))
    if activation == "silu":
        return xp.silu(x)
    return xp.gelu(x, approximate=activation == "gelu_approximate")


def gated(xp: Any, gate: Any, up: Any, part: FeedForward) -> Any:
    """Return what a gate makes of the other factor, of any equal shapes."""
    if part.clamped_gate is None:
        return activate(xp, gate, part.activation) * up
    alpha, limit = part.clamped_gate.alpha, part.clamped_gate.limit
    gate, up = xp.minimum(gate, limit), xp.maximum(xp.minimum(up, limit), -limit)
    return xp.silu(alpha * gate) / alpha * (up + 1)


def routing_weights(xp: Any, logits: Any, experts: Experts) -> tuple[Any, Any, Any]:
    """Return by which share each token goes through each expert.

    Args:
        xp: the array namespace, with `top_k` as `keras.ops` has it: of equals the lower place first.
        logits: of the router, float `(tokens, num_experts)`.
        experts: how many are taken, and whether their weights sum to 1.

    Returns:
        The weights, 0 for those that are not taken; the probabilities of all; and which are taken, 1 or 0; each in the
        shape of the logits.
    """
    probabilities = attention_weights(xp, logits)
    _, places = xp.top_k(probabilities, experts.experts_per_token)
    taken = xp.zeros_like(probabilities)
    numbers = xp.arange(experts.num_experts)
    for rank in range(experts.experts_per_token):
        taken = taken + xp.where(xp.equal(places[..., rank : rank + 1], numbers), xp.ones_like(taken), 0.0)
    weights = probabilities * taken
    if experts.normalize:
        weights = weights / xp.sum(weights, axis=-1, keepdims=True)
    return weights, probabilities, taken


def soft_cap(xp: Any, x: Any, cap: float | None) -> Any:
    """Return `x` bent smoothly into the range from `-cap` to `cap`; unchanged without a cap."""
    return x if cap is None else cap * xp.tanh(x / cap)


def attention_weights(xp: Any, scores: Any, sinks: Any = None) -> Any:
    """Return the softmax of scores along their last axis.

    Args:
        xp: the array namespace.
        scores: `(…, keys)`, very low where a key is not seen.
        sinks: a further score of each row, in a shape that broadcasts to `(…, 1)`, whose weight is left out.
    """
    highest = xp.max(scores, axis=-1, keepdims=True)
    if sinks is not None:
        highest = xp.maximum(highest, sinks)
    exponentials = xp.exp(scores - highest)
    total = xp.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / (total if sinks is None else total + xp.exp(sinks - highest))


def seen(query_positions: Any, key_positions: Any, window: int | None) -> Any:
    """Return whether queries see keys: those up to themselves, in the layer's window.

    Args:
        query_positions: int, in a shape that broadcasts with the keys'.
        key_positions: int.
        window: tokens that a token sees, itself among them; None for all.
    """
    causal = key_positions <= query_positions
    return causal if window is None else causal & (query_positions - key_positions < window)
