"""Keras variables whose numbers come late: from a file, or back from the engine that holds them meanwhile.

Nothing is drawn for a variable that waits for a file, and what an engine computes with lies in memory once. Numbers of
a file may go to several devices, where no host has to hold all of them.

Imports Keras: import it late.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import StatelessScope

from kerasgen.decoder.config import DecoderConfig

_WAITING = "uninitialized_variables"
_RETURNING = threading.Lock()

Cuts: TypeAlias = Callable[[str], Mapping[str, tuple[str | None, ...]]]
"""How the axis of a mesh, by its name, cuts a model's variables: by their paths, an axis or None for each dimension."""
Layouts: TypeAlias = Callable[[DecoderConfig, Cuts], Callable[[Any], Any] | None]
"""Of a model's description and cuts, what returns a variable's layout, or None where one device gets all of it."""
_LAYOUTS: ContextVar[Layouts | None] = ContextVar("layouts", default=None)


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


@contextmanager
def spread(layouts: Layouts) -> Iterator[None]:
    """Let the numbers of files that are read meanwhile go to the devices of these layouts; JAX alone has them."""
    token = _LAYOUTS.set(layouts)
    try:
        yield
    finally:
        _LAYOUTS.reset(token)


def giving(config: DecoderConfig, cuts: Cuts) -> Callable[[Any, Any], None]:
    """Return `give`, or what gives each device its part of a variable, if that is asked for.

    Args:
        config: of the model whose variables wait.
        cuts: of it.
    """
    layouts = _LAYOUTS.get()
    layout_of = None if layouts is None else layouts(config, cuts)
    if layout_of is None:
        return give

    def give_parts(variable: Any, numbers: Any) -> None:
        import jax

        numbers, layout = numbers.reshape(variable.shape), layout_of(variable)
        dtype = keras.backend.standardize_dtype(variable.dtype)
        variable._layout, variable._initializer = layout, None
        variable._value = jax.make_array_from_callback(
            tuple(variable.shape), layout.backend_layout, lambda place: np.asarray(numbers[place]).astype(dtype)
        )

    return give_parts


def give(variable: Any, numbers: Any) -> None:
    """Let a waiting variable begin with these numbers, which have as many as its shape."""
    variable._initialize(variable._convert_to_tensor(numbers.reshape(variable.shape), dtype=variable.dtype))
    variable._initializer = None


def draw(variable: Any) -> None:
    """Let a variable begin as its layer would have it, if it still waits."""
    if variable._value is None:
        variable._deferred_initialize()


class Lent:
    """Stands for the numbers of a variable that an engine holds; who asks for the variable's value gets them back.

    It takes the place of the variable's initializer, which Keras calls for a variable without a value.

    Args:
        variable: of the JAX backend.
        identity: of its numbers.
        make: returns them, a NumPy array that may be a view.
    """

    def __init__(self, variable: Any, identity: object, make: Callable[[], Any]) -> None:
        self._variable, self.identity, self._make = weakref.ref(variable), identity, make

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Return the numbers, which the variable holds from now on."""
        import jax

        with _RETURNING:
            variable = self._variable()
            if variable is not None and variable._value is not None:  # another thread asked at the same time
                return variable._value
            with jax.ensure_compile_time_eval():  # whatever is being traced, these are numbers
                value = jax.numpy.array(self._make().reshape(shape), dtype=dtype, copy=True)
            if variable is not None:
                variable._value, variable._initializer = value, None
                variable._kerasgen_numbers = weakref.ref(value), self.identity
            return value


def lend(variable: Any, value: Any, make: Callable[[], Any]) -> None:
    """Let go of a variable's value, which `make` gives back.

    It stays where the variable has another value by now, lies on several devices, or is none of the JAX backend's.
    """
    is_plain = keras.config.backend() == "jax" and not keras.config.is_nnx_enabled()
    if is_plain and len(value.sharding.device_set) == 1 and variable._value is value:
        variable._initializer, variable._value = Lent(variable, identity(variable), make), None


def identity(variable: Any) -> object:
    """Return an object that stands for the numbers of a variable of the JAX backend, and doesn't hold them.

    It stays the same while they are lent and returned, and is another one when others are assigned.
    """
    if variable._value is None and isinstance(variable._initializer, Lent):
        return variable._initializer.identity
    if isinstance(variable._initializer, Lent):  # assigned since: the old numbers are let go
        variable._initializer = None
    array = weakref.ref(variable.value)  # of an array there is one, which outlives it
    known = getattr(variable, "_kerasgen_numbers", None)
    if known is None or known[0] is not array:
        known = variable._kerasgen_numbers = array, object()
    found: object = known[1]
    return found
