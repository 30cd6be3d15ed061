"""Views of TensorFlow variables' numbers, without a copy, which tell whether a variable was written since.

TensorFlow writes a variable in place only while nothing else holds its buffer; else it takes a new buffer first, as for
any tensor that was read. So a view that is kept is a snapshot, and a variable that was written lies elsewhere.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt


class View:
    """A variable's numbers as TensorFlow holds them on the CPU. Equal views are of numbers that nobody wrote between.

    Attributes:
        array: the numbers, of which those in bfloat16 are uint16; None once it was let go.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array: npt.NDArray[Any] | None = array
        _VIEWS.add(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, View) or self.array is None or other.array is None:
            return False
        return self.array.shape == other.array.shape and address(self.array) == address(other.array)

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: Any) -> View:
        return self  # a copy of a variable lies elsewhere, so it differs from this


_VIEWS: weakref.WeakSet[View] = weakref.WeakSet()


def view(variable: Any) -> View | None:
    """Return a view of a Keras variable, or None where its numbers can't be seen without a copy.

    They can't on an accelerator, in a variable of several devices, and in one that was written by rows, which
    TensorFlow copies at each reading from then on.
    """
    held = variable.value
    if not hasattr(held, "read_value"):
        return None
    first, second = numbers_of(held), numbers_of(held)
    if first is None or second is None or address(first) != address(second):
        return None
    return View(first)


def let_go() -> None:
    """Let go of all views before variables are written, so that TensorFlow writes them in place.

    What compares with such a view finds the variable changed.
    """
    while _VIEWS:
        _VIEWS.pop().array = None


def numbers_of(held: Any) -> npt.NDArray[Any] | None:
    """Return the numbers of a `tf.Variable` as it holds them, read-only, or None where they can't be seen so."""
    import tensorflow as tf

    tensor = held.read_value()
    if tensor.dtype == tf.bfloat16:
        tensor = tf.bitcast(tensor, tf.uint16)
    try:
        return np.from_dlpack(tensor)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError, tf.errors.OpError):
        return None


def address(array: npt.NDArray[Any]) -> int:
    """Return where an array's first byte lies."""
    place: int = array.__array_interface__["data"][0]
    return place
