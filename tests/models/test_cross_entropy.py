"""A loss in chunks is the loss: value, accuracy and gradients as if all logits had stood there at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import tiny_gpt2
from toys import smallest_llama

from kerasgen import backend


def case(seed: int, tokens: int, vocabulary_size: int, width: int, real: float) -> dict[str, NDArray[Any]]:
    """Hidden states, a table, targets, and weights of which a share is zero."""
    rng = np.random.default_rng(seed)
    weights = rng.random((2, tokens)) * (rng.random((2, tokens)) < real)
    return {
        "hidden": rng.standard_normal((2, tokens, width)).astype(np.float32),
        "table": rng.standard_normal((vocabulary_size, width)).astype(np.float32),
        "targets": rng.integers(0, vocabulary_size, (2, tokens)).astype(np.int32),
        "weights": weights.astype(np.float32),
    }


def by_hand(hidden: Any, table: Any, targets: Any, weights: Any) -> tuple[float, float, Any, Any]:
    """Loss, accuracy and gradients in NumPy, in float64, with all logits at once."""
    hidden, table = hidden.astype(np.float64), table.astype(np.float64)
    logits = hidden @ table.T
    highest = logits.max(-1, keepdims=True)
    p = np.exp(logits - highest)
    p /= p.sum(-1, keepdims=True)
    chosen = np.take_along_axis(p, targets[..., None], -1)[..., 0]
    one_hot = np.arange(len(table)) == targets[..., None]
    of_logits = (p - one_hot) * weights[..., None]
    correct = p.argmax(-1) == targets
    return (
        float(-(weights * np.log(chosen)).sum()),
        float((weights * correct).sum()),
        of_logits @ table,
        np.einsum("btv,btd->vd", of_logits, hidden),
    )


def differentiated(inputs: dict[str, Any], *, dtype: str = "float32", scale: float = 1.0, **more: Any) -> list[Any]:
    """Loss, accuracy and the gradients of `scale * loss` by hidden and table, compiled, on the running backend."""
    running = backend.use()
    from kerasgen.models.cross_entropy import weighted_loss

    def losses(hidden: Any, table: Any, targets: Any, weights: Any) -> Any:
        from keras import ops

        found = weighted_loss(ops.cast(hidden, dtype), table, targets, weights, **more)
        return scale * found.loss, found

    if running == "jax":
        import jax

        by = jax.jit(jax.value_and_grad(losses, argnums=(0, 1), has_aux=True))
        (_, found), (of_hidden, of_table) = by(*inputs.values())
    else:
        import tensorflow as tf

        @tf.function
        def by(hidden: Any, table: Any, targets: Any, weights: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([hidden, table])
                value, found = losses(hidden, table, targets, weights)
            none = tf.UnconnectedGradients.ZERO
            return found, tape.gradient(value, [hidden, table], unconnected_gradients=none)

        found, (of_hidden, of_table) = by(*map(tf.constant, inputs.values()))
    return [float(found.loss), float(found.accuracy), np.asarray(of_hidden), np.asarray(of_table)]


@pytest.mark.essential
@pytest.mark.parametrize("real", [1.0, 0.4])
def test_value_accuracy_and_gradients_are_those_of_the_whole_logits(real: float) -> None:
    """600 tokens are three chunks of 256 here, the last one short, or one where few are real."""
    from kerasgen.models import cross_entropy

    inputs = case(0, tokens=300, vocabulary_size=70_000, width=8, real=real)
    assert cross_entropy.chunk_size(600, 70_000) == 256
    loss, accuracy, of_hidden, of_table = differentiated(inputs, scale=3.0)
    expected = by_hand(**inputs)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert accuracy == pytest.approx(expected[1], rel=1e-5)
    np.testing.assert_allclose(of_hidden, 3 * expected[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_table, 3 * expected[3], rtol=1e-4, atol=1e-5)


def far_from_zero() -> dict[str, NDArray[Any]]:
    """Logits near -100, as GPT-2's are: bfloat16 knows every half there. Half of the targets are likely ones."""
    inputs = case(1, tokens=128, vocabulary_size=700, width=64, real=1.0)
    inputs["table"] *= 0.12
    inputs["hidden"][..., 0], inputs["table"][:, 0] = 10.0, -10.0
    import ml_dtypes

    for name in ("hidden", "table"):
        inputs[name] = inputs[name].astype(ml_dtypes.bfloat16).astype(np.float32)
    likely = np.argsort(-(inputs["hidden"] @ inputs["table"].T), -1)[..., :3]
    inputs["targets"][:, ::2] = likely[:, ::2, 1]
    inputs["targets"][:, ::4] = likely[:, ::4, 0]
    return inputs


def test_bfloat16_products_are_summed_and_kept_in_float32() -> None:
    """Rounded to bfloat16, logits tie with others that are less likely, and each is off by up to a quarter."""
    inputs = far_from_zero()
    loss, accuracy, of_hidden, of_table = differentiated(inputs, dtype="bfloat16")
    expected = by_hand(**inputs)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert accuracy == pytest.approx(expected[1], rel=1e-5)
    for found, wanted in ((of_hidden, expected[2]), (of_table, expected[3])):
        assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_score_is_of_float32_logits_whatever_the_hidden_states_are() -> None:
    inputs = far_from_zero()
    backend.use()
    from keras import ops

    from kerasgen.models.cross_entropy import token_nll

    inputs["table"] += np.random.default_rng(2).standard_normal(inputs["table"].shape).astype(np.float32) * 1e-3
    found = token_nll(
        ops.cast(ops.convert_to_tensor(inputs["hidden"]), "bfloat16"),
        ops.convert_to_tensor(inputs["table"]),
        ops.convert_to_tensor(inputs["targets"]),
    )
    logits = inputs["hidden"].astype(np.float64) @ inputs["table"].T.astype(np.float64)
    wide = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    expected = wide - np.take_along_axis(logits, inputs["targets"][..., None], -1)[..., 0]
    np.testing.assert_allclose(np.asarray(found), expected, atol=2e-4)


@pytest.mark.parametrize("whole", [False, True], ids=["in chunks", "whole"])
def test_of_equally_likely_tokens_the_first_counts(whole: bool) -> None:
    """The numbers are small and whole, so that equal rows have equal logits in whichever order a product is summed."""
    inputs = case(2, tokens=64, vocabulary_size=50, width=8, real=1.0)
    rng = np.random.default_rng(3)
    inputs["hidden"] = rng.integers(-3, 4, inputs["hidden"].shape).astype(np.float32)
    inputs["table"] = rng.integers(-3, 4, inputs["table"].shape).astype(np.float32)
    inputs["table"][25:] = inputs["table"][:25]
    inputs["targets"] = (inputs["hidden"] @ inputs["table"].T).argmax(-1).astype(np.int32)
    inputs["targets"][:, ::2] += 25
    weights = inputs["weights"]
    if whole:
        backend.use()
        from kerasgen.models.cross_entropy import plain_weighted_loss

        logits = inputs["hidden"] @ inputs["table"].T
        accuracy = float(plain_weighted_loss(logits, inputs["targets"], weights).accuracy)
    else:
        accuracy = differentiated(inputs)[1]
    assert accuracy == pytest.approx(float(weights[:, 1::2].sum()), rel=1e-5)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(1, 300),
    vocabulary_size=st.integers(1, 400),
    width=st.sampled_from([1, 8]),
    real=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_whatever_the_shape(seed: int, tokens: int, vocabulary_size: int, width: int, real: float) -> None:
    """One token, one word, nothing real at all: nothing divides by zero."""
    inputs = case(seed, tokens, vocabulary_size, width, real)
    loss, accuracy, of_hidden, of_table = differentiated(inputs)
    expected = by_hand(**inputs)
    assert loss == pytest.approx(expected[0], rel=1e-4, abs=1e-5)
    assert accuracy == pytest.approx(expected[1], rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(of_hidden, expected[2], rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(of_table, expected[3], rtol=1e-3, atol=1e-4)


def test_a_frozen_table_gets_no_gradient_and_the_hidden_states_theirs() -> None:
    """As under LoRA."""
    inputs = case(1, tokens=40, vocabulary_size=50, width=4, real=0.8)
    _, _, of_hidden, of_table = differentiated(inputs, table_gradient=False)
    np.testing.assert_allclose(of_hidden, by_hand(**inputs)[2], rtol=1e-4, atol=1e-5)
    assert not of_table.any()


def test_half_precision_keeps_the_tables_gradient_whole() -> None:
    """The products are in bfloat16, and their sum over chunks is in float32."""
    inputs = case(2, tokens=300, vocabulary_size=90, width=16, real=0.9)
    loss, _, of_hidden, of_table = differentiated(inputs, dtype="bfloat16")
    expected = by_hand(**inputs)
    assert of_table.dtype == np.float32
    assert loss == pytest.approx(expected[0], rel=0.01)
    for found, right in ((of_hidden, expected[2]), (of_table, expected[3])):
        assert np.linalg.norm(found - right) < 0.02 * np.linalg.norm(right)


def test_no_array_of_a_training_step_holds_a_batchs_logits() -> None:
    """Neither they nor their gradient stand anywhere in what JAX computes."""
    if backend.use() != "jax":
        pytest.skip("JAX says which arrays a computation makes")
    import jax

    from kerasgen.models.cross_entropy import chunk_size, weighted_loss

    tokens, vocabulary_size = 4096, 50_257
    hidden = jax.ShapeDtypeStruct((4, tokens // 4, 16), "float32")
    targets = jax.ShapeDtypeStruct((4, tokens // 4), "int32")
    table = jax.ShapeDtypeStruct((vocabulary_size, 16), "float32")
    step = jax.grad(lambda *inputs: weighted_loss(*inputs).loss, argnums=(0, 1))
    compiled = jax.jit(step).lower(hidden, table, targets, jax.ShapeDtypeStruct(targets.shape, "float32")).compile()
    largest = chunk_size(tokens, vocabulary_size) * vocabulary_size * 4
    # Two arrays of a chunk's logits at a time, and the gradients that are kept.
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * largest < tokens * vocabulary_size * 4


@pytest.mark.slow
def test_on_an_accelerator_fewer_chunks_write_the_tables_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers stay. What is read and written falls, for each chunk's product is added to the whole gradient."""
    if backend.use() != "jax":
        pytest.skip("JAX says what a computation reads and writes")
    import jax

    from kerasgen.models import cross_entropy, cross_entropy_jax

    tokens, vocabulary_size, width = 8192, 50_257, 64
    chunks = {
        accelerator: cross_entropy.chunk_size(tokens, vocabulary_size, accelerator=accelerator)
        for accelerator in (False, True)
    }
    assert chunks == {False: 256, True: 2048}
    assert cross_entropy.chunk_size(tokens, 8192, accelerator=True) == 8192

    def moved(chunk: int) -> float:
        """Bytes that all chunks read and write: XLA counts a loop's body once."""
        step = jax.value_and_grad(
            lambda *inputs: cross_entropy_jax.weighted_loss(*inputs, chunk, True)[0], argnums=(0, 1)
        )
        shapes = [(tokens, width), (vocabulary_size, width), (tokens,), (tokens,)]
        kinds = ("bfloat16", "bfloat16", "int32", "float32")
        arguments = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)]
        compiled = jax.jit(step).lower(*arguments).compile({"xla_backend_optimization_level": 0})
        return float(compiled.cost_analysis()["bytes accessed"]) * (tokens // chunk)

    gradient = vocabulary_size * width * 4
    assert moved(256) - moved(2048) > 2 * (tokens // 256 - tokens // 2048) * gradient * 0.9
    monkeypatch.setattr(cross_entropy_jax, "on_accelerator", lambda: True)
    inputs = case(0, tokens=300, vocabulary_size=70_000, width=8, real=1.0)
    assert cross_entropy.chunk_size(600, 70_000, accelerator=True) == 600
    _, _, of_hidden, of_table = differentiated(inputs)
    expected = by_hand(**inputs)
    np.testing.assert_allclose(of_hidden, expected[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_table, expected[3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_of", [tiny_gpt2, smallest_llama], ids=["gpt2", "llama"])
def test_a_models_logits_are_its_hidden_states_times_its_table(model_of: Any) -> None:
    """Tied or not, packed or not: the chunked nats are those of KerasHub's own logits."""
    model = model_of()
    from keras import ops

    from kerasgen.models.cross_entropy import nll
    from kerasgen.models.forward import TokenLosses

    rng = np.random.default_rng(3)
    ids = rng.integers(3, 300, (2, 21)).astype(np.int32)
    inputs = {
        "token_ids": ids[:, :-1],
        "targets": ids[:, 1:],
        "positions": np.tile(np.arange(20, dtype=np.int32), (2, 1)),
        "segment_ids": np.ones((2, 20), np.int32),
        "weights": np.full((2, 20), 1 / 40, np.float32),
    }
    inputs = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
    losses = TokenLosses(model)
    assert losses.hidden(inputs) is not None
    logits = model.causal_lm({"token_ids": inputs["token_ids"], "padding_mask": inputs["segment_ids"]})
    expected = np.asarray(nll(logits, inputs["targets"]))
    np.testing.assert_allclose(np.asarray(losses(inputs)), expected, rtol=1e-4, atol=1e-5)
    assert float(losses.weighted(inputs).loss) == pytest.approx(float(expected.mean()), rel=1e-5)
