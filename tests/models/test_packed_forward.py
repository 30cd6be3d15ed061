"""The forward pass that tunes and scores is KerasHub's own, computed in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_llama, tiny_opt

from kerasgen.models.base import LanguageModel

pytestmark = pytest.mark.numerical

FAMILIES = {"gpt2": tiny_gpt2, "opt": tiny_opt, "llama": tiny_llama}


def inputs_of(rows: int = 3, length: int = 24) -> dict[str, Any]:
    """Rows of two documents each and some padding, as tensors."""
    from keras import ops

    rng = np.random.default_rng(0)
    first, second = length // 2, length // 3
    positions = np.concatenate([np.arange(first), np.arange(second), np.zeros(length - first - second)])
    segments = np.concatenate([np.ones(first), np.full(second, 2), np.zeros(length - first - second)])
    weights = np.where(segments > 0, rng.random((rows, length)), 0.0)
    return {
        "token_ids": ops.convert_to_tensor(rng.integers(3, 300, (rows, length)).astype(np.int32)),
        "targets": ops.convert_to_tensor(rng.integers(3, 300, (rows, length)).astype(np.int32)),
        "positions": ops.convert_to_tensor(np.tile(positions, (rows, 1)).astype(np.int32)),
        "segment_ids": ops.convert_to_tensor(np.tile(segments, (rows, 1)).astype(np.int32)),
        "weights": ops.convert_to_tensor(weights.astype(np.float32)),
    }


def gradients(
    model: LanguageModel, inputs: dict[str, Any], *, training: bool = False, is_reference: bool = False, **more: Any
) -> list[Any]:
    """The loss and its gradient by every trainable variable, with the dropout that the generators draw now.

    A reference is compiled fast rather than well.
    """
    import keras

    from kerasgen.models.forward import TokenLosses

    losses = TokenLosses(model, **more)
    if keras.config.backend() == "jax":
        import jax

        trainable = [variable.value for variable in model.causal_lm.trainable_variables]
        still = [variable.value for variable in losses.non_trainable_variables]

        def loss(trainable: Any) -> Any:
            pairs = [*zip(model.causal_lm.trainable_variables, trainable, strict=True)]
            pairs += zip(losses.non_trainable_variables, still, strict=True)
            with keras.StatelessScope(state_mapping=pairs):
                return losses.weighted(inputs, training=training).loss

        options = {"xla_backend_optimization_level": 0} if is_reference else None
        value, found = jax.jit(jax.value_and_grad(loss), compiler_options=options)(trainable)
    else:
        import tensorflow as tf

        variables = [variable.value for variable in model.causal_lm.trainable_variables]

        @tf.function(autograph=False)
        def compute() -> Any:
            with tf.GradientTape() as tape:
                value = losses.weighted(inputs, training=training).loss
            return value, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(value, variables)]

        value, found = compute()
    return [np.asarray(value), *map(np.asarray, found)]


def through_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the forward pass go through KerasHub's own layers."""
    from kerasgen.models import keras_decoder

    monkeypatch.setattr(keras_decoder, "_is_known", lambda architecture, layer: False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapted", [None, "keras", "paper"], ids=["full", "lora_of_keras", "lora"])
def test_loss_and_gradients_are_those_of_keras_hubs_layers(
    family: str, adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters on every kind of kernel: (width, heads, size), (heads, size, width) and (width, columns)."""
    model = FAMILIES[family](num_layers=1)
    if adapted:
        from kerasgen.tuners import adapters

        targets = ("query", "value", "attention_output", "feedforward_output_dense")
        adapters.enable(model, adapters.AdapterConfig(2, 3.0, targets, form=adapted), seed=1)
        rng = np.random.default_rng(2)
        for variable in model.causal_lm.trainable_variables:
            variable.assign(0.1 * rng.standard_normal(variable.shape))
    found = gradients(model, inputs_of())
    remade = gradients(model, inputs_of(), training=True, remat=True)
    through_keras(monkeypatch)
    expected = gradients(model, inputs_of(), is_reference=True)
    assert len(found) == 9 if adapted else len(found) > 10  # the loss, and two thin matrices for each of four targets
    for one, again, other in zip(found, remade, expected, strict=True):
        rounding = (
            2e-5 + 1e-4 * np.abs(other).max()
        )  # an element is a sum of terms as large as the largest, which cancel
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=rounding)
        np.testing.assert_allclose(again, other, rtol=1e-3, atol=rounding)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_activation_than_its_architectures_is_computed(family: str) -> None:
    """A person may change it on the layers; KerasHub's own call of the model, one document a row, is the truth."""
    import keras
    from keras import ops

    from kerasgen.models import architectures, keras_decoder
    from kerasgen.models.architectures import keras_weights
    from kerasgen.models.packed import hidden_states

    model = FAMILIES[family](num_layers=2)
    architecture = architectures.of_backbone(type(model.backbone).__name__)
    assert keras_weights.has_its_layers(architecture, model.backbone)
    for layer in model.backbone.transformer_layers:
        changed = layer if family == "llama" else layer._feedforward_intermediate_dense
        changed.activation = keras.activations.softplus
    assert not keras_weights.has_its_layers(architecture, model.backbone), "no decoder of ours takes it for another"
    token_ids = np.random.default_rng(0).integers(3, 300, (2, 8)).astype(np.int32)
    places = np.tile(np.arange(8, dtype=np.int32), (2, 1))
    inputs = {"token_ids": token_ids, "positions": places, "segment_ids": np.ones_like(token_ids)}
    found = hidden_states(
        keras_decoder.of_backbone(model.backbone),
        {k: ops.convert_to_tensor(v) for k, v in inputs.items()},
        training=False,
    )
    expected = model.backbone({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_a_gradient_under_dropout_is_the_slope_of_the_loss_under_the_same_dropout(remat: bool) -> None:
    """By finite differences along a direction, with the generators put back each time."""
    model = tiny_gpt2(num_layers=1, dropout=0.3)
    kernel = model.backbone.transformer_layers[0]._feedforward_intermediate_dense._kernel
    place = next(n for n, variable in enumerate(model.causal_lm.trainable_variables) if variable is kernel)
    states = [v for v in model.causal_lm.non_trainable_variables if v.path.endswith("seed_generator_state")]
    before = [np.array(state) for state in states]

    def run() -> list[Any]:
        for state, value in zip(states, before, strict=True):
            state.assign(value)
        return gradients(model, inputs_of(), training=True, remat=remat)

    start = np.array(kernel)
    assert float(run()[0]) != pytest.approx(float(gradients(model, inputs_of())[0]), rel=1e-4), "dropout is on"
    slope = run()[1 + place]
    direction = slope / np.linalg.norm(slope)
    values = []
    for step in (-1e-2, 1e-2):
        kernel.assign(start + step * direction)
        values.append(float(run()[0]))
    assert (values[1] - values[0]) / 2e-2 == pytest.approx(float(np.linalg.norm(slope)), rel=2e-2)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_its_share_and_the_mean(rate: float) -> None:
    from kerasgen import backend

    running = backend.use()
    from keras import ops

    kernels: Any
    if running == "jax":
        from kerasgen.models import kernels_jax as kernels
    else:
        from kerasgen.models import kernels_tensorflow as kernels
    seed = ops.convert_to_tensor(np.asarray([3, 5], np.uint32 if running == "jax" else np.int32))
    dropped = np.asarray(kernels.dropout(ops.ones((401, 500)), rate, seed))
    assert (dropped == 0).mean() == pytest.approx(rate, abs=0.005)
    assert dropped.mean() == pytest.approx(1.0, abs=0.01)
    assert np.unique(dropped).size == 2
