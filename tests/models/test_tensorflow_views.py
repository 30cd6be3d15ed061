"""What a variable of TensorFlow holds is seen without a copy, and every way of writing it is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen.generation import engine_registry, jax_weights
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


def _in_a_graph(write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    import tensorflow as tf

    def compiled(variable: Any) -> None:
        def written() -> None:
            write(variable)

        tf.function(written, autograph=False)()

    return compiled


def _rows(variable: Any) -> Any:
    import tensorflow as tf

    return tf.random.normal((1, *variable.shape[1:]))


def _scatter(variable: Any) -> None:
    import tensorflow as tf

    variable.value.scatter_update(tf.IndexedSlices(_rows(variable), tf.constant([1])))


def _sparse_step(variable: Any) -> None:
    import tensorflow as tf

    sums = tf.Variable(tf.ones(variable.shape))
    tf.raw_ops.ResourceSparseApplyAdagrad(
        var=variable.value.handle, accum=sums.handle, lr=0.1, grad=_rows(variable), indices=[2]
    )


def _descent(variable: Any) -> None:
    import tensorflow as tf

    tf.raw_ops.ResourceApplyGradientDescent(var=variable.value.handle, alpha=0.1, delta=tf.ones(variable.shape))


def _operation(name: str) -> Callable[[Any], Any]:
    import tensorflow as tf

    return lambda variable: getattr(tf.raw_ops, name)(
        resource=variable.value.handle, value=tf.random.normal(variable.shape)
    )


OPERATIONS: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "assign": lambda: _operation("AssignVariableOp"),
    "assign_add": lambda: _operation("AssignAddVariableOp"),
    "assign_sub, in a graph": lambda: _in_a_graph(_operation("AssignSubVariableOp")),
    "gradient descent": lambda: _descent,
    "gradient descent, in a graph": lambda: _in_a_graph(_descent),
    "some rows": lambda: _scatter,
    "some rows, in a graph": lambda: _in_a_graph(_scatter),
    "a slice": lambda: lambda variable: variable.value[:1].assign(_rows(variable)),
    "a step of some rows": lambda: _sparse_step,
    "by NumPy": lambda: lambda variable: variable.assign(np.random.default_rng().random(variable.shape)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_engine_s_state_tells_what_tensorflow_s_operations_write_again_and_again(name: str) -> None:
    model, write = tiny_gpt2(seed=3), OPERATIONS[name]()
    variable = model.backbone.token_embedding.embeddings
    state, numbers = jax_weights.state_of(model), np.array(variable)
    assert jax_weights.is_same(state, jax_weights.state_of(model))
    for _ in range(3):
        write(variable)
        assert not np.array_equal(np.array(variable), numbers)
        now, numbers = jax_weights.state_of(model), np.array(variable)
        assert not jax_weights.is_same(state, now)
        assert jax_weights.is_same(now, jax_weights.state_of(model))
        state = now


def test_numbers_that_lie_where_tensorflow_s_do_can_t_be_written_by_numpy() -> None:
    variable = keras.Variable(np.arange(12, dtype="float32").reshape(3, 4))
    held = variable.value.read_value()
    view = tensorflow_views.view(variable)
    assert view is not None
    assert view.array is not None
    for array in (view.array, np.asarray(held), np.asarray(memoryview(held))):
        assert not array.flags.writeable
    for array in (held.numpy(), np.asarray(variable), keras.ops.convert_to_numpy(variable)):
        assert array.ctypes.data != view.array.ctypes.data


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
