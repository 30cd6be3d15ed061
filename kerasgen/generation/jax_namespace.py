"""JAX as an array namespace, so that samplers' arithmetic runs in a graph without Keras. Imports JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kerasgen.generation import jax_drawing, jax_reductions


class JaxNamespace:
    """`jax.numpy` with the few names that `keras.ops` has beside NumPy's, and reductions that are fast on a CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def cast(array: Any, dtype: Any) -> Any:
        """Return the array in another type."""
        return jnp.asarray(array).astype(dtype)

    @staticmethod
    def view(array: Any, dtype: Any) -> Any:
        """Return the same bits as another type of the same size."""
        return jax.lax.bitcast_convert_type(array, jnp.dtype(dtype))

    @staticmethod
    def top_k(values: Any, k: int, sorted: bool = True) -> tuple[Any, Any]:  # noqa: A002 - Keras's name
        """Return the highest values and their places, the highest first."""
        highest: tuple[Any, Any] = tuple(jax.lax.top_k(values, k))
        return highest

    @staticmethod
    def sum(array: Any, axis: int, keepdims: bool = False) -> Any:
        """Return the sum along an axis, in the array's type."""
        return _along(jnp.sum, lambda array: jax_reductions.sums([array])[0], array, axis, keepdims)

    @staticmethod
    def max(array: Any, axis: int, keepdims: bool = False) -> Any:
        """Return the maximum along an axis."""
        return _along(jnp.max, jax_reductions.maximum, array, axis, keepdims)

    @staticmethod
    def min(array: Any, axis: int, keepdims: bool = False) -> Any:
        """Return the minimum along an axis."""
        return _along(jnp.min, jax_reductions.minimum, array, axis, keepdims)

    @staticmethod
    def argmax(array: Any, axis: int) -> Any:
        """Return the place of the maximum along an axis, the first of equals."""
        if axis != -1 or array.dtype == jnp.bool_:
            return jnp.argmax(array, axis=axis)
        return jax_reductions.first_maximum(array)

    @staticmethod
    def sums(arrays: Sequence[Any]) -> list[Any]:
        """Return each array's sum along its last axis, `(rows, 1)`, of arrays that are read at the same time."""
        return [found[..., None] for found in jax_reductions.sums(arrays)]

    @staticmethod
    def draw_among_highest(logits: Any, k: Any, uniforms: Any, otherwise: Callable[[Any, Any], Any]) -> Any:
        """Return a place of each row, drawn among its `k` highest, as `otherwise` would from logits and uniforms."""
        if not jax_drawing.pays(logits.shape[-1]):
            return otherwise(logits, uniforms)
        return jax_drawing.among_highest(logits, k, uniforms, otherwise)

    @staticmethod
    def draw_from_nucleus(logits: Any, p: Any, uniforms: Any, otherwise: Callable[[Any, Any], Any]) -> Any:
        """Return a place of each row, drawn from the nucleus of `p`, as `otherwise` would from logits and uniforms."""
        if not jax_drawing.pays(logits.shape[-1]):
            return otherwise(logits, uniforms)
        return jax_drawing.from_nucleus(XP, logits, p, uniforms, otherwise)

    @staticmethod
    def while_loop(cond: Callable[..., Any], body: Callable[..., Any], loop_vars: tuple[Any, ...]) -> Any:
        """Repeat `body` while `cond` says so."""
        return jax.lax.while_loop(lambda state: cond(*state), lambda state: tuple(body(*state)), tuple(loop_vars))


def _along(plain: Callable[..., Any], last: Callable[[Any], Any], array: Any, axis: int, keepdims: bool) -> Any:
    """A reduction along an axis: of the last one by `last`, of others and of truth values by JAX's own."""
    if axis != -1 or array.dtype == jnp.bool_:
        return plain(array, axis=axis, keepdims=keepdims)
    found = last(array)
    return found[..., None] if keepdims else found


XP = JaxNamespace()
