"""In a graph of TensorFlow's, blocks that compute the same are traced once, with the same loss and gradients."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from described import CONFIGS, TOKENS, drawn
from letters import LetterTokenizer
from tiny import tiny_gpt2

from kerasgen.models import packed
from kerasgen.models.base import LanguageModel
from kerasgen.models.forward import TokenLosses
from kerasgen.tuners import adapters

pytestmark = [
    pytest.mark.skipif("keras.config.backend() != 'tensorflow'", reason="TensorFlow's functions"),
    pytest.mark.numerical,
]

# Of four layers each: how many blocks differ. Windows and rotation in some layers alone make two kinds of blocks.
DIFFERENT = {"gpt2": 1, "llama": 1, "gpt_neox": 1, "gptj": 1, "olmo2": 1, "gemma2": 2, "smollm3": 2, "bloom": 1}


def _model(name: str) -> LanguageModel:
    from kerasgen.models.container import Container

    found = Container(CONFIGS[name])
    found.assign(drawn(CONFIGS[name]))
    return LanguageModel(None, LetterTokenizer(), "a test", container=found)


def _inputs() -> dict[str, Any]:
    segments = np.repeat([[1, 2, 0]], (8, 9, 3), axis=1).astype(np.int32)
    places = np.concatenate([np.arange(8), np.arange(9), np.zeros(3)])[None].astype(np.int32)
    ids = np.asarray([TOKENS], np.int32)
    given = {"token_ids": ids, "targets": np.roll(ids, -1, 1), "positions": places, "segment_ids": segments}
    return {name: keras.ops.convert_to_tensor(value) for name, value in given.items()} | {
        "weights": keras.ops.cast(segments > 0, "float32")
    }


def _differentiated(losses: TokenLosses, variables: list[Any], *, in_a_graph: bool) -> list[Any]:
    """The nats of each target, the loss, and its gradients."""
    import tensorflow as tf

    inputs = _inputs()

    def compute() -> Any:
        with tf.GradientTape() as tape:
            loss = losses.weighted(inputs, training=True).loss
        gradients = tape.gradient(loss, [variable.value for variable in variables], unconnected_gradients="zero")
        return losses(inputs), loss, *map(tf.convert_to_tensor, gradients)

    return [np.asarray(value) for value in (tf.function(compute, autograph=False) if in_a_graph else compute)()]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the layers whose block is computed in Python."""
    indices: list[int] = []
    block = packed.block

    def noted(config: Any, index: int, *others: Any) -> Any:
        indices.append(index)
        return block(config, index, *others)

    monkeypatch.setattr(packed, "block", noted)
    return indices


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_graph_computes_what_its_operations_compute_one_by_one(name: str, traced: list[int]) -> None:
    model = _model(name)
    losses, variables = TokenLosses(model), model.network.trainable_variables
    expected = _differentiated(losses, variables, in_a_graph=False)
    assert len(traced) == 2 * 4
    traced.clear()
    found = _differentiated(losses, variables, in_a_graph=True)
    assert len(traced) == 2 * DIFFERENT[name]
    for one, other, what in zip(found, expected, ["nats", "loss", *(v.path for v in variables)], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5, err_msg=what)


def test_what_differs_from_layer_to_layer_is_computed_layer_by_layer(traced: list[int]) -> None:
    """Adapters are no plain layers; and a rate of dropout is part of what a block computes."""
    model = tiny_gpt2(seed=3, num_layers=3, dropout=0.1)
    model.backbone.transformer_layers[1].dropout = 0.2
    losses = TokenLosses(model)
    _differentiated(losses, [], in_a_graph=True)
    assert set(traced) == {0, 1}
    traced.clear()
    adapters.enable(model, adapters.AdapterConfig(2, 4.0, ("attention",)), seed=0)
    _differentiated(losses, [], in_a_graph=True)
    assert set(traced) == {0, 1, 2}
