"""Lets variables of TensorFlow go of numbers that an engine holds; whoever reaches for one gets its numbers back.

A Keras variable whose numbers are lent has no `tf.Variable` meanwhile. Its class is one derived from its own, which
makes a new `tf.Variable` the moment anything asks for it. That is right only where nothing else holds the old one: a
graph that was traced would go on with the old one, and its steps would be lost. What holds a `tf.Variable` or its
handle is counted, and what is held elsewhere stays where it is.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kerasgen import huge_pages
from kerasgen.models import tensorflow_views
from kerasgen.models.tensorflow_views import View

_NUMBERS, _LENT = "_kerasgen_numbers", "_kerasgen_lent"
_CHANGING = threading.RLock()
_LINE = 64  # bytes of a line of the cache


class _Lent(NamedTuple):
    """What a variable needs to get its numbers back.

    Args:
        identity: of the numbers, as `identity` returns it.
        make: returns the numbers, a NumPy array that may be a view.
        held: makes a `tf.Variable` as the old one was, of numbers.
    """

    identity: object
    make: Callable[[], Any]
    held: Callable[[Any], Any]


def identity(variable: Any) -> object | None:
    """Return an object that stands for the numbers of a Keras variable on TensorFlow, and doesn't hold them.

    It stays the same while they are lent and returned, and is another one once any were written. None where that can't
    be told; see `tensorflow_views.view`.
    """
    with _CHANGING:
        if is_lent(variable):
            return variable.__dict__[_LENT].identity  # type: ignore[no-any-return]
        seen = tensorflow_views.view(variable)
        if seen is None:
            return None
        known = variable.__dict__.get(_NUMBERS)
        if known is None or known[0] != seen:
            known = seen, object()
            setattr(variable, _NUMBERS, known)
        return known[1]  # type: ignore[no-any-return]


def is_lent(variable: Any) -> bool:
    """Return whether a variable has let go of its numbers."""
    return isinstance(variable, _LentVariable)


def lend(variable: Any, seen: View, make: Callable[[], Any]) -> bool:
    """Let go of a variable's numbers, which `make` gives back.

    Args:
        variable: of Keras.
        seen: the view that the engine's numbers were made from.
        make: returns the numbers, a NumPy array that may be a view.

    Returns:
        Whether it did: not where the numbers were written since, where a graph, an optimizer's step or a person holds
        the `tf.Variable`, and where it is of another kind than Keras makes on one device.
    """
    with _CHANGING:
        value = variable.__dict__.get("_value")
        if is_lent(variable) or type(value) is not _kind() or seen.array is None:
            return False
        known, kind = identity(variable), type(variable)
        # From here on the class alone leads to it, which waits: nobody can begin to write it.
        variable.__class__ = _lent_kind(kind)  # type: ignore[arg-type]
        del variable.__dict__["_value"]
        if known is None or _holders(value) != _fewest() or not _is_seen(value, seen):
            variable.__dict__["_value"] = value
            variable.__class__ = kind
            return False
        variable.__dict__[_LENT] = _Lent(known, make, _as_before(value))
        variable.__dict__.pop(_NUMBERS)
        return True


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array in memory that TensorFlow gives out, to write into.

    TensorFlow keeps what its variables let go of for its own use, so an engine that holds their numbers takes its
    memory from there too. It goes back to TensorFlow with the array and all views of it.
    """
    import tensorflow as tf

    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < huge_pages.PAGE:
        return np.zeros(shape, kind)
    with tf.init_scope(), tf.device("CPU:0"):
        tensor = tf.raw_ops.Empty(shape=(-(-size // _LINE), _LINE), dtype=tf.uint8, init=False)
    memory: Any = (ctypes.c_ubyte * size).from_address(tensorflow_views.address(np.from_dlpack(tensor)))
    memory.tensor = tensor  # whose views NumPy may not write
    return np.frombuffer(memory, kind).reshape(shape)


class _LentVariable:
    """What a Keras variable is besides while its numbers are lent."""

    @property
    def _value(self) -> Any:
        return _returned(self)

    @_value.setter
    def _value(self, value: Any) -> None:
        _give(self, value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        _returned(self)
        return self.__reduce_ex__(protocol)  # that of its own class


def _returned(variable: Any) -> Any:
    """Return the `tf.Variable` of a Keras variable, which has its numbers again."""
    import tensorflow as tf

    with _CHANGING:
        if is_lent(variable):  # and no other thread asked before
            lent = variable.__dict__[_LENT]
            # Memory of its own: TensorFlow may keep an array that it is given, and write it.
            numbers = np.array(lent.make().reshape(tuple(variable.shape)), order="C")
            with tf.init_scope():  # whatever is being traced, these are numbers
                value = lent.held(numbers)
            _give(variable, value)
            seen = tensorflow_views.view(variable)
            if seen is not None:
                setattr(variable, _NUMBERS, (seen, lent.identity))
        return variable.__dict__["_value"]


def _give(variable: Any, value: Any) -> None:
    with _CHANGING:
        kind = type(variable).__mro__[2]
        variable.__dict__["_value"] = value
        variable.__class__ = kind
        variable.__dict__.pop(_LENT, None)


def _as_before(value: Any) -> Callable[[Any], Any]:
    """Return what makes a `tf.Variable` like this one of numbers. An optimizer knows it by its id, which stays."""
    import tensorflow as tf

    dtype, name, device = value.dtype, value.name.partition(":")[0], value.device
    settings = {name: getattr(value, name) for name in ("trainable", "aggregation", "synchronization")}
    known_by = value._unique_id

    def held(numbers: Any) -> Any:
        with tf.device(device):
            made = _kind()(initial_value=numbers, dtype=dtype, name=name, **settings)
        made._unique_id = known_by
        return made

    return held


def _is_seen(value: Any, seen: View) -> bool:
    numbers = tensorflow_views.numbers_of(value)
    return numbers is not None and View(numbers) == seen


def _holders(value: Any) -> tuple[int, int]:
    """Return how many hold a `tf.Variable`, the caller among them, and how many its handle."""
    return sys.getrefcount(value), sys.getrefcount(value._handle)


@cache
def _fewest() -> tuple[int, int]:
    """Return what `_holders` does of a `tf.Variable` that its caller alone holds."""
    value = _kind()(initial_value=np.zeros((), np.float32))
    return _holders(value)


@cache
def _kind() -> type:
    """Return the class of the variables that TensorFlow makes on one device."""
    import tensorflow as tf

    with tf.init_scope():
        return type(tf.Variable(0.0))


@cache
def _lent_kind(kind: type) -> type:
    """Return the class of a variable of this class whose numbers are lent; nothing else of it differs."""
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (_LentVariable, kind), names)
