"""JAX as an array namespace, so that samplers' arithmetic runs in a graph without Keras. Imports JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


class JaxNamespace:
    """`jax.numpy` with the few names that `keras.ops` has beside NumPy's."""

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
    def while_loop(cond: Callable[..., Any], body: Callable[..., Any], loop_vars: tuple[Any, ...]) -> Any:
        """Repeat `body` while `cond` says so."""
        return jax.lax.while_loop(lambda state: cond(*state), lambda state: tuple(body(*state)), tuple(loop_vars))


XP = JaxNamespace()
