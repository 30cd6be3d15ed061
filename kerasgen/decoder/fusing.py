"""Projections that one product computes are laid side by side. On NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasgen.decoder.block import GATE_UP, QUERY_KEY_VALUE, Roles
from kerasgen.decoder.weights import Weights


def fused_name(roles: Roles) -> str:
    """Return the name of a projection of several roles, such as `query_key_value`; of one, its own."""
    return "_".join(roles)


def fused(weights: Weights) -> Weights:
    """Return the weights with one projection for queries, keys and values, and one for gate and up.

    Args:
        weights: by the names of `kerasgen.decoder.weights`.

    Returns:
        The same, but for what is fused, which is copied.
    """
    return {**weights, "layers": [fused_layer(layer) for layer in weights["layers"]]}


def fused_layer(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's weights, fused as `fused` does it."""
    fused_weights = dict(layer)
    for roles, before in ((QUERY_KEY_VALUE, ""), (GATE_UP, ""), (GATE_UP, "shared_")):
        if f"{before}{roles[0]}" in fused_weights:
            fused_weights[f"{before}{fused_name(roles)}"] = _side_by_side(
                [fused_weights.pop(f"{before}{role}") for role in roles]
            )
    return fused_weights


def _side_by_side(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One projection of several; where only some have a bias, the others' is zero."""
    joined = {"kernel": np.concatenate([part["kernel"] for part in parts], axis=-1)}
    if any("bias" in part for part in parts):
        biases = [part["bias"] if "bias" in part else np.zeros_like(part["kernel"][..., 0, :]) for part in parts]
        joined["bias"] = np.concatenate(biases, axis=-1)
    return joined
