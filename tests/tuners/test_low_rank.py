"""Adapters in the paper's form: one pair of thin matrices for a projection, whoever computes with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contained import Contained
from tiny import tiny_gpt2, tiny_llama

from kerasgen.errors import TuneArgumentError
from kerasgen.models import described
from kerasgen.models.base import LanguageModel
from kerasgen.tuners import adapters
from kerasgen.tuners.adapters import AdapterConfig

pytestmark = pytest.mark.one_backend

MODELS: dict[str, Any] = {
    "gpt2": lambda: tiny_gpt2(num_layers=1),
    "llama": lambda: tiny_llama(num_layers=1),
    "container": lambda: Contained().load(),
}


def thin_of(model: LanguageModel) -> list[Any]:
    return [variable for variable in model.network.trainable_variables if "lora_kernel" in variable.path]


@pytest.mark.parametrize("stabilized", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_the_frozen_ones_and_a_product_of_rank_r(name: str, stabilized: bool) -> None:
    """In every reader of the weights; merged, the model computes what it did."""
    model = MODELS[name]()
    before = described.weights_of(model)
    adapters.enable(model, AdapterConfig(3, 6.0, ("all",), rank_stabilized=stabilized), seed=1)
    thin = thin_of(model)
    assert len(thin) == len(model.network.trainable_variables)
    rng = np.random.default_rng(0)
    for variable in thin:
        variable.assign(0.1 * rng.standard_normal(variable.shape))
    adapted = described.weights_of(model)
    roles = [role for role in ("query", "key", "value", "output", "gate", "up", "down") if role in before["layers"][0]]
    wanted = 0
    for layer, was in zip(adapted["layers"], before["layers"], strict=True):
        for role in roles:
            difference = layer[role]["kernel"] - was[role]["kernel"]
            assert np.linalg.matrix_rank(difference, tol=1e-4) == 3
            wanted += 3 * sum(difference.shape)
    assert sum(int(np.prod(variable.shape)) for variable in thin) == wanted  # peft's number of weights
    scale = 6.0 / (3**0.5 if stabilized else 3)
    pairs = {id(layer): layer for layer in model.network._flatten_layers() if getattr(layer, "lora_enabled", False)}
    products = sorted(
        float(np.linalg.norm(np.asarray(layer.lora_kernel_a) @ np.asarray(layer.lora_kernel_b)))
        for layer in pairs.values()
    )
    found = sorted(
        float(np.linalg.norm(layer[role]["kernel"] - was[role]["kernel"]))
        for layer, was in zip(adapted["layers"], before["layers"], strict=True)
        for role in roles
    )
    np.testing.assert_allclose(found, np.array(products) * scale, rtol=1e-4)
    ids = np.array([[5, 9, 30, 7]], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    logits = np.asarray(model.network(inputs))
    adapters.merge(model)
    assert adapters.current(model) is None
    np.testing.assert_allclose(np.asarray(model.network(inputs)), logits, atol=1e-4)
    for layer, was in zip(described.weights_of(model)["layers"], adapted["layers"], strict=True):
        for role in roles:
            np.testing.assert_allclose(layer[role]["kernel"], was[role]["kernel"], atol=1e-6)


def test_adapters_say_their_form_and_come_back_in_it(tmp_path: Any) -> None:
    for form in ("paper", "keras"):
        model = tiny_gpt2(num_layers=1)
        config = AdapterConfig(2, 4.0, ("attention",), form=form, rank_stabilized=form == "paper")
        adapters.enable(model, config, seed=0)
        for number, variable in enumerate(thin_of(model)):
            variable.assign(np.full(variable.shape, 0.01 * (number + 1)))
        (tmp_path / form).mkdir()
        adapters.save(model, tmp_path / form)
        again = tiny_gpt2(num_layers=1)
        adapters.load(again, tmp_path / form)
        assert adapters.current(again) == adapters.current(model)
        for one, other in zip(thin_of(again), thin_of(model), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_roles_together_are_targets_and_their_absence_is_told() -> None:
    model = tiny_gpt2(num_layers=1)
    adapters.check(model, AdapterConfig(2, 4.0, ("mlp",)))
    with pytest.raises(TuneArgumentError, match=r"gate.*attention"):
        adapters.check(model, AdapterConfig(2, 4.0, ("gate",)))
