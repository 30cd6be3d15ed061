"""A frozen base of codes: what they stand for, who reads them, and gradients that pass through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contained import Contained
from tiny import tiny_gpt2, tiny_llama

from kerasgen.models import described, forward, projections, quantized_base
from kerasgen.models.base import LanguageModel

MODELS: dict[str, Any] = {
    "gpt2": lambda: tiny_gpt2(num_layers=1),
    "llama": lambda: tiny_llama(num_layers=1),
    "container": lambda: Contained().load(),
}


def held(model: LanguageModel, scheme: Any) -> LanguageModel:
    quantized_base.hold(quantized_base.targets(forward.decoder_of(model)), scheme)
    return model


@pytest.mark.one_backend
@pytest.mark.parametrize(("scheme", "levels"), [("int8", 254), ("int4", 15)])
@pytest.mark.parametrize("rows", [5, 64, 100])
def test_a_weight_is_off_by_half_a_step_at_most(scheme: Any, levels: int, rows: int) -> None:
    from keras import ops

    matrix = np.random.default_rng(0).normal(0.3, 1.0, (rows, 7)).astype(np.float32)
    matrix[:, 3] = 0.25  # an output whose weights are one
    codes = quantized_base.quantize(matrix, scheme)
    assert codes[0].nbytes <= (matrix.size if scheme == "int8" else (rows + 31) // 32 * 32 * 7 // 2)
    found = np.asarray(
        quantized_base._dequantized(scheme, matrix.shape, tuple(map(ops.convert_to_tensor, codes)), "float32")
    )
    block = rows if scheme == "int8" else 32
    for start in range(0, rows, block):
        part = matrix[start : start + block]
        span = 2 * np.abs(part).max(0) if scheme == "int8" else part.max(0) - part.min(0)
        half = span / levels / 2 + 1e-6 if scheme == "int8" else span / 30 + np.abs(part).max(0) * 2.0**-9
        assert (np.abs(found[start : start + block] - part) <= half).all()


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("gpt2", "int8"), ("llama", "int4"), ("container", "int8"), ("llama", "bfloat16"), ("gpt2", "bfloat16")],
)
def test_every_reader_sees_the_floats_that_the_codes_stand_for(name: str, scheme: Any) -> None:
    """KerasHub's layers, kerasgen's pass and the arrays that exporters and engines take; and the model is its size."""
    model = MODELS[name]()
    size, paths = model.network.count_params(), [variable.path for variable in model.network.weights]
    tables = 2 if name == "container" else 1
    wanted = sum(len(block) for block in described.weights_of(model)["layers"])
    held(model, scheme)
    assert quantized_base.scheme_of(model.network) == scheme
    assert quantized_base.count_params(model.network) == size
    carrying = [layer for layer in model.network._flatten_layers() if quantized_base.is_on(layer)]
    assert 5 <= len(carrying) <= wanted + tables
    assert not any(variable.path.endswith("kernel") for variable in model.network.weights)
    ids = np.array([[5, 9, 30, 7, 201]], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    logits = np.asarray(model.network(inputs))
    weights = described.weights_of(model)
    given = {"token_ids": ids, "targets": ids, "positions": np.arange(5, dtype=np.int32)[None]}
    nats = np.asarray(forward.TokenLosses(model)({**given, "segment_ids": np.ones_like(ids)}))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(nats, -np.take_along_axis(log_p, ids[..., None], -1)[..., 0], atol=1e-5)
    for layer in carrying:
        quantized_base.release(layer)
    assert [variable.path for variable in model.network.weights] == paths
    np.testing.assert_allclose(np.asarray(model.network(inputs)), logits, atol=1e-5)
    for one, other in zip(described.weights_of(model)["layers"], weights["layers"], strict=True):
        for role in ("query", "down"):
            np.testing.assert_array_equal(one[role]["kernel"], other[role]["kernel"])


@pytest.mark.one_backend
@pytest.mark.parametrize(("name", "scheme"), [("llama", "int4"), ("container", "int4"), ("container", "bfloat16")])
def test_a_file_is_read_into_codes_without_a_variable_of_floats(name: str, scheme: Any, monkeypatch: Any) -> None:
    from kerasgen.models import deferred_weights, networks
    from kerasgen.models.architectures import tensors

    model = MODELS[name]()
    (config, weights), architecture = described.decoder_of(model), described.architecture_of(model)
    assert architecture is not None
    file = tensors.write(architecture, config, weights, "transformers")
    give, floats = deferred_weights.give, []

    def watching(variable: Any, numbers: Any) -> None:
        floats.append(variable)
        give(variable, numbers)

    monkeypatch.setattr(deferred_weights, "give", watching)
    with quantized_base.loading(scheme):
        network = networks.build(architecture, config, lambda tensor, shape: file[tensor], "transformers")
    assert all(len(variable.shape) == 1 or "position" in variable.path for variable in floats)
    assert quantized_base.scheme_of(network) == scheme
    loaded = LanguageModel(
        *((None, model.tokenizer, "", {}, network) if name == "container" else (network, model.tokenizer, ""))
    )
    wanted = described.weights_of(held(model, scheme))
    for one, other in zip(described.weights_of(loaded)["layers"], wanted["layers"], strict=True):
        np.testing.assert_array_equal(one["down"]["kernel"], other["down"]["kernel"])


def test_gradients_pass_through_codes_as_through_floats() -> None:
    """The product's own backward pass, which makes the matrix again, is that of the matrix."""
    import keras
    from keras import ops

    from kerasgen.models import packed

    model = held(tiny_gpt2(num_layers=1), "int4")
    layer = forward.decoder_of(model).parts["layers"][0]["up"]  # type: ignore[union-attr]
    x = np.random.default_rng(0).normal(size=(6, 32)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(6, 64)).astype(np.float32)
    matrix = np.asarray(ops.convert_to_numpy(quantized_base.restored(layer, "float32")))
    assert matrix.shape == projections.matrix_shape(layer)

    def loss(x: Any) -> Any:
        return ops.sum(packed._frozen(layer, x, None) * weights)

    if keras.config.backend() == "jax":
        import jax

        found = jax.grad(loss)(x)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            given = tf.convert_to_tensor(x)
            tape.watch(given)
            total = loss(given)
        found = tape.gradient(total, given)
    np.testing.assert_allclose(np.asarray(found), weights @ matrix.T, rtol=1e-4, atol=1e-5)
