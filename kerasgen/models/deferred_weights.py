"""Keras variables that begin with the numbers of a file: nothing is drawn for them first, and no second copy is made.

Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import StatelessScope

_WAITING = "uninitialized_variables"


@contextmanager
def deferred() -> Iterator[None]:
    """Let the variables of models that are built meanwhile wait for `give`; a model can't be called before."""
    before = global_state.get_global_attribute(_WAITING, [])
    global_state.set_global_attribute(_WAITING, [])
    try:
        with StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(_WAITING, before)


def give(variable: Any, numbers: Any) -> None:
    """Let a waiting variable begin with these numbers, which have as many as its shape."""
    variable._initialize(variable._convert_to_tensor(numbers.reshape(variable.shape), dtype=variable.dtype))
    variable._initializer = None


def draw(variable: Any) -> None:
    """Let a variable begin as its layer would have it, if it still waits."""
    if variable._value is None:
        variable._deferred_initialize()
