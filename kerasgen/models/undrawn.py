"""Draws the first weights of a model by NumPy, where a file's take their place at once. Imports Keras: import it late.

JAX compiles a program for each shape that Keras draws: of the starter, 20 of them, half a second of the processor.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

_here: ContextVar[bool] = ContextVar("here", default=False)
_PATCHING = threading.Lock()
_keras_draws = keras.initializers.RandomNormal.__call__
_open = 0


@contextmanager
def by_numpy() -> Iterator[None]:
    """Let `RandomNormal` draw by NumPy while the block runs, in this thread: the same distribution, other numbers.

    A weight that the file doesn't have begins as a draw, as it would otherwise.
    """
    global _open
    token = _here.set(True)
    with _PATCHING:
        _open += 1
        keras.initializers.RandomNormal.__call__ = _draw
    try:
        yield
    finally:
        with _PATCHING:
            _open -= 1
            if not _open:
                keras.initializers.RandomNormal.__call__ = _keras_draws
        _here.reset(token)


def _draw(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
    dtype = keras.backend.standardize_dtype(dtype)
    if not _here.get() or not isinstance(self.seed, int) or dtype != "float32":
        return _keras_draws(self, shape, dtype)
    drawn = np.random.default_rng(abs(self.seed)).standard_normal(shape, np.float32)
    drawn *= np.float32(self.stddev)
    drawn += np.float32(self.mean)
    return drawn
