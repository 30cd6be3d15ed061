"""Parts that the block's JAX executors share: array namespace, caches, norms, projections, experts. Imports JAX."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kerasgen.decoder import jax_experts, positions
from kerasgen.decoder.arithmetic import activate, gated, normalize, routing_weights
from kerasgen.decoder.block import ROUTER, Roles, shared_expert
from kerasgen.decoder.config import DecoderConfig, Positions, RotaryPositions

NEVER = -1e30


class _Namespace:
    """`jax.numpy` with the names that `kerasgen.decoder.arithmetic` takes beside NumPy's."""

    rsqrt = staticmethod(jax.lax.rsqrt)
    relu = staticmethod(jax.nn.relu)
    silu = staticmethod(jax.nn.silu)
    gelu = staticmethod(jax.nn.gelu)
    top_k = staticmethod(jax.lax.top_k)

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)


XP = _Namespace()


class Cache(NamedTuple):
    """Keys and values of every layer.

    Args:
        keys: for each layer float32 `(prompts, heads, size, length)`; of generated tokens
            `(prompts, heads, size, slots, length)`.
        values: for each layer float32 `(prompts, heads, length, size)`; of generated tokens
            `(prompts, heads, slots, length, size)`.
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]


class Hooks(ABC):
    """What a block computes with, on `(features, rows)`; see `kerasgen.decoder.block.Hooks`.

    Args:
        config: the decoder's.
        places: int32 `(prompts, texts)`, where the tokens stand in their texts.
        text_lengths: int32, in a shape that broadcasts to it, how long the texts are with these tokens.
    """

    def __init__(self, config: DecoderConfig, places: Any, text_lengths: Any) -> None:
        self._config, self.positions, self._text_lengths = config, places, text_lengths
        self._angles: dict[Positions, tuple[Any, Any]] = {}
        self.keys: list[Any] = []
        self.values: list[Any] = []

    def norm(self, hidden: Any, weights: Any) -> Any:
        """Return it normalized."""
        return normalize(XP, hidden, self._config.norm, weights, axis=0)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """The projections of all these roles, one below the other."""
        return affine(hidden, layer["_".join(roles)])

    def activate(self, projected: Any) -> Any:
        """Return the activation, gated where the description says so."""
        part = self._config.feedforward
        if not part.gated:
            return activate(XP, projected, part.activation)
        gate, up = jnp.split(projected, 2)
        return gated(XP, gate, up, part)

    def drop(self, hidden: Any, site: str) -> Any:
        """Return it as it is."""
        return hidden

    def experts(self, hidden: Any, layer: Mapping[str, Any]) -> Any:
        """The sum of what each token's likeliest experts make of it, by their weights."""
        part = self._config.feedforward
        settings = part.experts
        assert settings is not None
        weights, _, _ = routing_weights(XP, self.project(hidden, layer, ROUTER).T, settings)  # (rows, experts)
        total = jax_experts.mixed(part, hidden, layer, weights, self.activate)
        if not settings.shared_dim:
            return total
        share = jax.nn.sigmoid(self.project(hidden, layer, ("shared_router",)))
        return total + share * shared_expert(self._config, layer, hidden, self)

    @abstractmethod
    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        """Return what the heads gather, `(heads * size, rows)`."""

    def _by_heads(self, index: int, layer: Mapping[str, Any], projected: Any) -> list[Any]:
        """Queries, keys and values, `(heads, size, prompts, texts)`, normed and rotated; queries are scaled.

        Columns beside those of the texts are left out.
        """
        attention, kind = self._config.attention, self._config.positions_of(index)
        prompts, texts = self.positions.shape
        columns = projected[:, : prompts * texts]
        first, second = attention.query_dim, attention.query_dim + attention.key_value_dim
        by_role = []
        for role, part in zip(("query", "key", "value"), jnp.split(columns, (first, second)), strict=True):
            norm = attention.query_key_norm if role != "value" else None
            is_whole = attention.query_key_norm_axis == "all_heads"
            if norm is not None and is_whole:
                part = normalize(XP, part, norm, layer[f"{role}_norm"], axis=0)
            heads = part.reshape(-1, attention.head_dim, prompts, texts)
            if norm is not None and not is_whole:
                of_size = {name: array[..., None] for name, array in layer[f"{role}_norm"].items()}
                heads = normalize(XP, heads, norm, of_size, axis=1)
            if isinstance(kind, RotaryPositions) and role != "value":
                heads = positions.rotate(XP, heads, *self._angles_of(kind), kind, axis=1)
            by_role.append(heads * attention.score_scale if role == "query" else heads)
        return by_role

    def _angles_of(self, kind: RotaryPositions) -> tuple[Any, Any]:
        """Cosines and sines, `(pairs, prompts, texts)`, which all layers of these positions share."""
        if kind not in self._angles:
            size, places = self._config.attention.head_dim, self.positions.astype(jnp.float32)
            self._angles[kind] = positions.text_angles(XP, kind, size, places, self._text_lengths, axis=0)
        return self._angles[kind]


def affine(hidden: Any, weights: Mapping[str, Any]) -> Any:
    """Return the projection of hidden states `(in, rows)` by a kernel, and a bias if there is one, `(out, rows)`."""
    projected = product(weights["kernel"], hidden)
    return projected + weights["bias"] if "bias" in weights else projected


def product(kernel: Any, hidden: Any) -> Any:
    """`kernel @ hidden`, float32, of a kernel that may be bfloat16.

    An accelerator rounds what enters, and sums in float32. On a CPU XLA widens a kernel as fast as it multiplies by it,
    but for a product of one column: that takes 10 to 50 times as long as one of two (see the log), so one of zeros
    stands beside.
    """
    if kernel.dtype == hidden.dtype:
        return kernel @ hidden
    if jax.default_backend() != "cpu":
        return jnp.matmul(kernel, hidden.astype(kernel.dtype), preferred_element_type=hidden.dtype)
    wide = kernel.astype(hidden.dtype)
    if hidden.shape[1] > 1:
        return wide @ hidden
    return (wide @ jnp.pad(hidden, ((0, 0), (0, 1))))[:, :1]
