"""What a variable of TensorFlow holds is seen without a copy, and every way of writing it is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen.generation import engine_registry
from kerasgen.models import tensorflow_views

pytestmark = pytest.mark.skipif("keras.config.backend() != 'tensorflow'", reason="TensorFlow's variables")


def stepped(variable: Any, *, jit: bool) -> None:
    """Take a compiled step of an optimizer, whose kernels write in place where they may."""
    import tensorflow as tf

    optimizer = keras.optimizers.AdamW(0.1)
    optimizer.build([variable])
    tf.function(lambda: optimizer.apply([tf.ones(variable.shape)], [variable]), jit_compile=jit)()


WRITES: dict[str, Callable[[Any], Any]] = {
    "assign": lambda variable: variable.assign(np.ones(variable.shape)),
    "assign_add": lambda variable: variable.assign_add(np.ones(variable.shape)),
    "TensorFlow's own": lambda variable: variable.value.assign_sub(np.ones(variable.shape, "float32")),
    "a compiled step": lambda variable: stepped(variable, jit=False),
    "a step of XLA": lambda variable: stepped(variable, jit=True),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_view_is_a_snapshot_and_differs_from_what_is_written_later(write: str) -> None:
    variable = keras.Variable(np.arange(12, dtype="float32").reshape(3, 4))
    before, again = tensorflow_views.view(variable), tensorflow_views.view(variable)
    assert before is not None
    assert before == again
    for _ in range(2):  # the second time nothing else holds the variable's buffer
        WRITES[write](variable)
    after = tensorflow_views.view(variable)
    assert after is not None
    assert before != after
    np.testing.assert_array_equal(before.array, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(after.array, np.asarray(variable))


def test_what_is_written_by_rows_has_no_view_and_bfloat16_has_one() -> None:
    import tensorflow as tf

    variable = keras.Variable(np.zeros((3, 4), "float32"))
    variable.value.scatter_update(tf.IndexedSlices(tf.ones((1, 4)), tf.constant([1])))
    assert tensorflow_views.view(variable) is None
    half = keras.Variable(np.ones((3, 4)), dtype="bfloat16")
    view = tensorflow_views.view(half)
    assert view is not None
    assert view == tensorflow_views.view(half)
    assert view.array is not None
    assert view.array.dtype == np.uint16


def test_what_was_let_go_is_no_longer_the_same() -> None:
    variable = keras.Variable(np.zeros((3, 4), "float32"))
    view = tensorflow_views.view(variable)
    tensorflow_views.let_go()
    assert view != tensorflow_views.view(variable)


def test_jax_computes_with_tensorflow_s_own_table_until_it_is_written() -> None:
    model = tiny_gpt2(seed=3)
    table = model.backbone.token_embedding.embeddings
    view, engine = tensorflow_views.view(table), engine_registry.resolve(model)
    tokens = engine.weights["embedding"]["tokens"]
    assert view is not None
    assert view.array is not None
    assert tokens.unsafe_buffer_pointer() == view.array.ctypes.data
    weights = engine.weights
    assert engine_registry.resolve(model).weights is weights
    table.assign(np.asarray(table) + 1)
    np.testing.assert_array_equal(
        np.asarray(tokens) + 1, np.asarray(engine_registry.resolve(model).weights["embedding"]["tokens"])
    )
