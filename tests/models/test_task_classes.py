"""Several threads make models of KerasHub at a time, and use those that they have."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from kerasgen.models import hub_import

SIZES = {"num_layers": 1, "hidden_dim": 8, "intermediate_dim": 16, "vocabulary_size": 50}
BACKBONES = {
    "GPT2": {"num_heads": 2, "max_sequence_length": 8},
    "Llama": {"num_query_heads": 2, "num_key_value_heads": 2},
}


@pytest.fixture(autouse=True)
def _threads_that_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _make(name: str) -> Any:
    models = hub_import.load().models
    backbone = getattr(models, f"{name}Backbone")(**SIZES, **BACKBONES[name])
    return getattr(models, f"{name}CausalLM")(backbone=backbone, preprocessor=None, compile=False)


def _together(work: list[Callable[[], object]]) -> list[Exception]:
    """Return what was raised by these, each in a thread of its own."""
    barrier = threading.Barrier(len(work))
    raised: list[Exception] = []

    def run(function: Callable[[], object]) -> None:
        barrier.wait()
        try:
            function()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.slow
def test_tasks_are_made_and_used_in_several_threads() -> None:
    held = _make("GPT2")
    names = [layer.name for layer in held.layers]
    inputs = {"token_ids": np.ones((1, 4), "int32"), "padding_mask": np.ones((1, 4), "int32")}

    makers = [*BACKBONES, *BACKBONES]
    ended = threading.Semaphore(0)

    def make(name: str) -> None:
        try:
            for _ in range(3):
                assert any(layer.name == "token_embedding" for layer in _make(name).layers)
        finally:
            ended.release()

    def use() -> None:
        for _ in makers:
            while not ended.acquire(timeout=0.001):
                assert [layer.name for layer in held.layers] == names
                assert held(inputs).shape == (1, 4, SIZES["vocabulary_size"])

    assert _together([*(functools.partial(make, name) for name in makers), use]) == []


def test_the_first_models_of_a_class_are_made_in_several_threads() -> None:
    hub_import.load()
    import keras

    def own_class() -> type:
        class Doubling(keras.Model):  # type: ignore[misc, no-any-unimported]
            def __init__(self, **settings: Any) -> None:
                inputs = keras.Input((1,))
                super().__init__(inputs=inputs, outputs=2.0 * inputs, **settings)

        return Doubling

    for _ in range(20):
        kind = own_class()
        assert _together([functools.partial(kind, name="doubling")] * 4) == []


def test_a_model_without_inputs_can_still_be_a_task() -> None:
    hub_import.load()
    import keras
    from keras_hub.src.utils.pipeline_model import PipelineModel

    class Plain(PipelineModel):  # type: ignore[misc, no-any-unimported]
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    _make("GPT2")
    model = Plain()
    assert [layer.name for layer in model.layers] == [model.dense.name]
    assert tuple(model(keras.ops.ones((3, 4))).shape) == (3, 2)
    assert _make("GPT2").layers
