"""Variables of TensorFlow let go of what the engine holds, unless something else would miss it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny import tiny_gpt2

from kerasgen import huge_pages
from kerasgen.generation import engine_registry, generate_ids
from kerasgen.models import tensorflow_lending
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.sampling import Greedy

pytestmark = pytest.mark.skipif("keras.config.backend() != 'tensorflow'", reason="TensorFlow's variables")

IDS = np.array([[5, 6, 7, 8]])
INPUTS = {"token_ids": IDS, "padding_mask": np.ones_like(IDS)}


def kernels(model: LanguageModel) -> list[Any]:
    return [each for each in model.network.variables if each.name == "kernel"]


def lent(model: LanguageModel) -> list[bool]:
    return [tensorflow_lending.is_lent(variable) for variable in kernels(model)]


def generated(model: LanguageModel) -> list[int]:
    return list(generate_ids(model, [[5, 6, 7]], sampler=Greedy(), max_new_tokens=6)[0][0].token_ids)


def lent_model() -> tuple[LanguageModel, list[Any]]:
    model = tiny_gpt2(seed=3)
    before = [np.array(variable) for variable in kernels(model)]
    generated(model)
    assert all(lent(model))
    return model, before


def _traced(model: LanguageModel) -> Callable[[], Any]:
    import tensorflow as tf

    function = tf.function(lambda: model.causal_lm(INPUTS))
    function()
    return function


def _recorded(model: LanguageModel) -> Any:
    import tensorflow as tf

    tape = tf.GradientTape(persistent=True)
    with tape:
        model.causal_lm(INPUTS)
    return tape


HOLDERS: dict[str, Callable[[LanguageModel], Any]] = {
    "a graph": _traced,
    "predict": lambda model: model.causal_lm.predict(INPUTS, verbose=0),
    "a tape": _recorded,
    "a list of TensorFlow's variables": lambda model: [variable.value for variable in kernels(model)],
    "a list of handles": lambda model: [variable.handle for variable in kernels(model)],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_something_else_holds_is_not_lent(holder: str) -> None:
    model = tiny_gpt2(seed=3)
    held = HOLDERS[holder](model)
    values = [variable.value for variable in kernels(model)]
    ids = generated(model)
    assert not any(lent(model))
    assert all(variable.value is value for variable, value in zip(kernels(model), values, strict=True))
    assert ids == generated(tiny_gpt2(seed=3))
    del held


def test_a_graph_that_was_traced_before_computes_with_what_is_assigned_after_texts() -> None:
    model, other = tiny_gpt2(seed=3), tiny_gpt2(seed=4)
    function = _traced(model)
    generated(model)
    for variable, source in zip(model.network.variables, other.network.variables, strict=True):
        variable.assign(np.array(source))
    np.testing.assert_allclose(function(), other.causal_lm(INPUTS), atol=1e-4)
    assert generated(model) == generated(other)


def test_a_graph_that_is_traced_while_they_are_lent_reads_them() -> None:
    import tensorflow as tf

    wanted = np.asarray(tiny_gpt2(seed=3).causal_lm(INPUTS))
    model, _ = lent_model()
    function = tf.function(lambda: model.causal_lm(INPUTS))
    np.testing.assert_allclose(function(), wanted, atol=1e-4)
    kernels(model)[0].assign(np.zeros(kernels(model)[0].shape))
    assert np.abs(np.asarray(function()) - wanted).max() > 1e-3


def test_an_optimizer_that_knew_the_variables_goes_on() -> None:
    """Keras's optimizers know TensorFlow's variables by ids, and keep moments of each."""

    def steps(model: LanguageModel, *, write: bool) -> list[Any]:
        optimizer = keras.optimizers.AdamW(0.01)
        optimizer.build(model.network.trainable_variables)
        for step in range(3):
            gradients = [keras.ops.ones(each.shape) * (step + 1) for each in model.network.trainable_variables]
            optimizer.apply(gradients, model.network.trainable_variables)
            if write:
                generated(model)
                assert all(lent(model))
        return [np.array(each) for each in model.network.variables]

    for one, wanted in zip(steps(tiny_gpt2(seed=3), write=True), steps(tiny_gpt2(seed=3), write=False), strict=True):
        np.testing.assert_array_equal(one, wanted)


def _loaded(model: LanguageModel, folder: Path) -> list[Any]:
    model.causal_lm.save_weights(folder / "some.weights.h5")
    other = tiny_gpt2(seed=4)
    other.causal_lm.load_weights(folder / "some.weights.h5")
    return kernels(other)


def _checkpoint(model: LanguageModel, folder: Path) -> list[Any]:
    import tensorflow as tf

    variables = kernels(model)
    path = tf.train.Checkpoint(**{f"v{n}": each for n, each in enumerate(variables)}).write(str(folder / "saved"))
    return [tf.train.load_variable(path, f"v{n}/.ATTRIBUTES/VARIABLE_VALUE") for n in range(len(variables))]


READERS: dict[str, Callable[[LanguageModel, Path], list[Any]]] = {
    "NumPy": lambda model, _: [np.asarray(each) for each in kernels(model)],
    "numpy()": lambda model, _: [each.numpy() for each in kernels(model)],
    "value": lambda model, _: [each.value for each in kernels(model)],
    "_value": lambda model, _: [each._value for each in kernels(model)],
    "TensorFlow": lambda model, _: [each + 0.0 for each in kernels(model)],
    "a slice": lambda model, _: [each[:] for each in kernels(model)],
    "get_weights": lambda model, _: [
        array
        for each, array in zip(model.network.weights, model.network.get_weights(), strict=True)
        if each.name == "kernel"
    ],
    "a shallow copy": lambda model, _: [copy.copy(each) for each in kernels(model)],
    "a deep copy": lambda model, _: [copy.deepcopy(each) for each in kernels(model)],
    "save_weights": _loaded,
    "TensorFlow's checkpoint": _checkpoint,
}


@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_a_variable_gets_its_numbers(reader: str, tmp_path: Path) -> None:
    model, before = lent_model()
    kinds = [repr(type(variable)) for variable in kernels(model)]
    found = READERS[reader](model, tmp_path)
    for one, wanted in zip(found, before, strict=True):
        np.testing.assert_array_equal(np.array(one), wanted)
    assert not any(lent(model))
    assert [repr(type(variable)) for variable in kernels(model)] == kinds, "the class has the same name"
    assert not issubclass(type(kernels(model)[0]), tensorflow_lending._LentVariable)


WRITERS: dict[str, Callable[[Any, Any], Any]] = {
    "assign": lambda variable, numbers: variable.assign(numbers),
    "assign_add": lambda variable, numbers: variable.assign_add(numbers - variable.numpy()),
    "TensorFlow's assign": lambda variable, numbers: variable.value.assign(numbers),
    "a new variable": lambda variable, numbers: variable._initialize(numbers),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_written_while_it_is_lent_is_computed_with(writer: str) -> None:
    model, _ = lent_model()
    other = tiny_gpt2(seed=4)
    for variable, source in zip(model.network.variables, other.network.variables, strict=True):
        WRITERS[writer](variable, np.array(source))
    for variable, source in zip(model.network.variables, other.network.variables, strict=True):
        np.testing.assert_allclose(np.array(variable), np.array(source), atol=1e-6)  # sums are rounded
    assert generated(model) == generated(other)


def test_it_gets_back_the_settings_it_had() -> None:
    model = tiny_gpt2(seed=3)
    kernel = kernels(model)[0]
    kernel.trainable = False
    value = kernel.value
    told = [getattr(value, name) for name in ("name", "dtype", "shape", "device", "trainable", "_unique_id")]
    del value
    generated(model)
    assert lent(model)[0]
    assert [
        getattr(kernel.value, name) for name in ("name", "dtype", "shape", "device", "trainable", "_unique_id")
    ] == told
    assert not kernel.trainable


def test_threads_that_ask_at_the_same_time_get_one_variable() -> None:
    model, before = lent_model()
    variables, barrier = kernels(model), threading.Barrier(4)
    found: list[list[Any]] = []

    def ask() -> None:
        barrier.wait()
        found.append([variable.value for variable in variables])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for same in zip(*found, strict=True):
        assert all(value is same[0] for value in same)
    for value, wanted in zip(found[0], before, strict=True):
        np.testing.assert_array_equal(value.numpy(), wanted)


def test_numbers_that_came_back_are_tensorflow_s_own() -> None:
    """A write in place changes nothing that the engine computes with."""
    model, _ = lent_model()
    engine = engine_registry.resolve(model)
    layer = engine.weights["layers"][0]
    before = np.array(layer["up"]["kernel"])
    for variable in kernels(model):
        variable.assign(variable * 0.0)
    np.testing.assert_array_equal(np.asarray(layer["up"]["kernel"]), before)


@pytest.mark.parametrize("shape", [(3, 5), (2048, 700), (2, 1024, 512)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_that_tensorflow_gives_out_is_taken_by_jax_as_it_lies(shape: tuple[int, ...], dtype: str) -> None:
    import jax
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    source = (np.arange(np.prod(shape)) % 251).astype(kind).reshape(shape)
    array = huge_pages.copy(source, tensorflow_lending.empty)
    place = array.ctypes.data
    held = jax.device_put(array)
    del array
    for _ in range(3):  # what is freed is given out again; this is not free
        huge_pages.copy(np.zeros(shape, kind), tensorflow_lending.empty)
    np.testing.assert_array_equal(np.asarray(held), source)
    if source.nbytes >= huge_pages.PAGE:
        assert held.unsafe_buffer_pointer() == place
