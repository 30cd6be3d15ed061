"""Reduces long rows in ways that XLA's compiler for CPUs vectorizes. Imports JAX.

XLA computes what a reduction reads into a buffer of its own, unless at most 32 elements are reduced at a time, and its
`argmax` compares one element after another. So a long row is laid in lanes of 16 and each lane is reduced, element by
element as the rows are read, until little is left: a masked sum of 32 rows of 50,257 takes 0.5 ms and not 1, their
`argmax` 0.7 and not 8 (see the log). Elsewhere than on a CPU the plain reductions stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LANE = 16
_SHORT = 2048  # what is reduced at once

Combine = Callable[[Any, Any], Any]


def sums(arrays: Sequence[Any]) -> list[Any]:
    """Return the sum of each array along its last axis; they are read at the same time.

    Args:
        arrays: float or int, all of one shape. With more than 4, XLA no longer keeps the sums in registers (see the
            log).
    """
    return _reduced(list(arrays), [jnp.zeros((), array.dtype) for array in arrays], lax.add)


def maximum(array: Any) -> Any:
    """Return the maximum along the last axis; NaN may count as nothing, or be what is returned."""
    return _reduced([array], [_least(array.dtype)], lax.max)[0]


def minimum(array: Any) -> Any:
    """Return the minimum along the last axis; NaN may count as nothing, or be what is returned."""
    return _reduced([array], [_most(array.dtype)], lax.min)[0]


def first_maximum(array: Any) -> Any:
    """Return the place of the maximum along the last axis, int32; of equals the first; with NaN some place."""
    size = array.shape[-1]
    if not _pays(size):
        return jnp.argmax(array, axis=-1).astype(jnp.int32)
    highest = maximum(array)[..., None]
    return minimum(jnp.where(array == highest, jnp.arange(size, dtype=jnp.int32), size - 1))


def _pays(size: int) -> bool:
    return size > _SHORT and jax.default_backend() == "cpu"


def _reduced(arrays: list[Any], begun: list[Any], combine: Combine) -> list[Any]:
    size = arrays[0].shape[-1]
    if not _pays(size):
        return [
            lax.reduce(array, first, combine, (array.ndim - 1,)) for array, first in zip(arrays, begun, strict=True)
        ]
    lanes = size // _LANE
    heads = [array[..., : _LANE * lanes].reshape(*array.shape[:-1], _LANE, lanes) for array in arrays]

    def both(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
        return [combine(*pair) for pair in zip(one, other, strict=True)]

    # The barrier keeps XLA from making one reduction of the two, as it does where nothing is left over.
    by_lane = lax.optimization_barrier(list(lax.reduce(heads, begun, both, (heads[0].ndim - 2,))))
    found = _reduced(by_lane, begun, combine)
    if size == _LANE * lanes:
        return found
    return both(found, _reduced([array[..., _LANE * lanes :] for array in arrays], begun, combine))


def _least(dtype: Any) -> Any:
    return jnp.array(-jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min, dtype)


def _most(dtype: Any) -> Any:
    return jnp.array(jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max, dtype)
