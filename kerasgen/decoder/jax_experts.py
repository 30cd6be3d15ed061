"""A mixture of experts in columns layout: few rows read the kernels that they take, many read all. Imports JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kerasgen.decoder.block import GATE_UP, UP
from kerasgen.decoder.config import FeedForward
from kerasgen.decoder.fusing import fused_name


def mixed(
    part: FeedForward, hidden: Any, layer: Mapping[str, Any], weights: Any, activate: Callable[[Any], Any]
) -> Any:
    """Return the sum of what each row's experts make of it, by their weights, `(dim, rows)`.

    Args:
        part: with experts.
        hidden: `(dim, rows)`.
        layer: whose kernels are `(experts, out, in)` and whose biases `(experts, out, 1)`.
        weights: `(rows, experts)`, 0 for those that a row does not take.
        activate: of the products, which stand along the first axis.
    """
    assert part.experts is not None
    first, down = layer[fused_name(GATE_UP if part.gated else UP)], layer["down"]
    taken = part.experts.experts_per_token
    if hidden.shape[1] * taken < part.experts.num_experts:
        values, places = jax.lax.top_k(weights, taken)  # (rows, taken)
        own, last = ({name: array[places] for name, array in projection.items()} for projection in (first, down))
        products = jnp.einsum("rkoi,ir->ork", own["kernel"], hidden)
        products = products + jnp.moveaxis(own["bias"][..., 0], -1, 0) if "bias" in own else products
        total = jnp.einsum("rkoi,irk,rk->or", last["kernel"], activate(products), values)
        return total + jnp.einsum("rko,rk->or", last["bias"][..., 0], values) if "bias" in last else total
    products = jnp.einsum("eoi,ir->oer", first["kernel"], hidden)
    products = products + jnp.moveaxis(first["bias"], 0, 1) if "bias" in first else products
    wide = activate(products) * weights.T
    total = jnp.einsum("eoi,ier->or", down["kernel"], wide)
    return total + jnp.einsum("eo,re->or", down["bias"][..., 0], weights) if "bias" in down else total
