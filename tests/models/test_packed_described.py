"""Every described decoder is computed in packed rows: transformers' logits, documents apart, gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described import BY_LENGTH, CONFIGS, TOKENS, drawn

from kerasgen.decoder import weights as by_name
from kerasgen.decoder.config import Norm
from kerasgen.decoder.numpy import NumpyDecoder

LOGITS = np.load(Path(__file__).parents[1] / "decoder" / "transformers_logits.npz")
NAMES = list(CONFIGS)
# What the others add has no gradient of its own, or is tried on KerasHub's layers in `test_packed_forward`.
TRAITS = (
    *("llama_tied_with_biases", "llama_dynamic", "gemma2", "gemma3_text", "gpt_neox", "gptj", "bloom", "olmo2"),
    *("granite", "smollm3", "sinks", "mixtral", "gpt_oss"),
)
LESS = [name if name in TRAITS else pytest.param(name, marks=pytest.mark.slow) for name in (*NAMES, "sinks")]
SINKS = replace(
    CONFIGS["gpt2"],
    attention=replace(CONFIGS["qwen2"].attention, output_bias=True, sinks=True),
    norm=Norm(bias=False),
    norm_placement="after_sum",
)
COMPARED = [
    name if name in TRAITS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in BY_LENGTH
]
KNOWN = CONFIGS | {"sinks": SINKS}
LENGTH, FIRST, SECOND = 24, 12, 8


@cache
def container_of(name: str) -> Any:
    from kerasgen import backend

    backend.use()
    from kerasgen.models.container import Container

    found = Container(KNOWN[name])
    found.assign(drawn(KNOWN[name]))
    return found


@cache
def losses_of(name: str) -> Any:
    from letters import LetterTokenizer

    from kerasgen.models.base import LanguageModel
    from kerasgen.models.forward import TokenLosses

    return TokenLosses(LanguageModel(None, LetterTokenizer(), "a test", container=container_of(name)))


def row_of(first: list[int], second: list[int]) -> dict[str, Any]:
    """One row of two documents and padding, and targets that are the next tokens."""
    from keras import ops

    ids, targets = np.zeros((2, 1, LENGTH), np.int32)
    places, segments = np.zeros((2, 1, LENGTH), np.int32)
    for number, (begin, document) in enumerate(((0, first), (FIRST, second)), start=1):
        span = slice(begin, begin + len(document) - 1)
        ids[0, span], targets[0, span] = document[:-1], document[1:]
        places[0, span], segments[0, span] = np.arange(len(document) - 1), number
    given = {"token_ids": ids, "targets": targets, "positions": places, "segment_ids": segments}
    weights = np.where(segments > 0, np.linspace(0.2, 1.0, LENGTH, dtype=np.float32), 0).astype(np.float32)
    return {name: ops.convert_to_tensor(value) for name, value in (given | {"weights": weights}).items()}


def loss_and_gradients(name: str, inputs: dict[str, Any]) -> tuple[float, list[Any]]:
    """The weighted loss, and its gradients in the order of the container's variables."""
    return differentiated(losses_of(name), container_of(name), inputs, lambda found: found.loss)


def differentiated(
    losses: Any, container: Any, inputs: dict[str, Any], summed: Callable[[Any], Any]
) -> tuple[float, list[Any]]:
    """What is summed of a weighted loss, and its gradients in the order of the container's variables."""
    import keras

    variables = container.trainable_variables
    if keras.config.backend() == "jax":
        import jax

        def compute(values: Any) -> Any:
            with keras.StatelessScope(state_mapping=[*zip(variables, values, strict=True)]):
                return summed(losses.weighted(inputs, training=True))

        found = jax.value_and_grad(compute)([variable.value for variable in variables])
        return float(found[0]), [np.asarray(gradient) for gradient in found[1]]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = summed(losses.weighted(inputs, training=True))
    found = tape.gradient(loss, [variable.value for variable in variables], unconnected_gradients="zero")
    return float(loss), [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]


def reference(name: str, weights: Any, documents: list[list[int]], scores: Any) -> float:
    """The same loss by NumPy in float64, one document after the other."""
    total = 0.0
    for begin, document in zip((0, FIRST), documents, strict=True):
        logits = NumpyDecoder(KNOWN[name], weights).read(document[:-1]).astype(np.float64)
        highest = logits.max(axis=-1)
        logsums = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
        nll = logsums - logits[np.arange(len(logits)), document[1:]]
        total += float((scores[begin : begin + len(nll)] * nll).sum())
    return total


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name: str) -> None:
    ids = np.array([TOKENS], np.int32)
    found = container_of(name)({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    np.testing.assert_allclose(np.asarray(found)[0], LOGITS[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", COMPARED)
def test_tokens_of_documents_that_share_a_row_cost_what_they_cost_in_transformers(name: str) -> None:
    """The softmax of its logits; twice the same text, so that the second one's beginning would see the first."""
    logits = LOGITS[name][: FIRST - 1].astype(np.float64)
    logsums = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    wanted = logsums - logits[np.arange(FIRST - 1), TOKENS[1:FIRST]]
    found = np.asarray(losses_of(name)(row_of(TOKENS[:FIRST], TOKENS[:FIRST]), training=False))[0]
    np.testing.assert_allclose(found[: FIRST - 1], wanted, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found[FIRST : 2 * FIRST - 1], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", LESS)
def test_documents_of_a_row_cost_what_they_cost_alone_and_slopes_are_those_of_float64(name: str) -> None:
    """Finite differences of the NumPy decoder along a direction in each kind of weight."""
    documents = [TOKENS[: FIRST + 1], TOKENS[-SECOND:]]
    inputs = row_of(*documents)
    scores = np.asarray(inputs["weights"])[0]
    loss, gradients = loss_and_gradients(name, inputs)
    wide = by_name.map_arrays(lambda array: array.astype(np.float64), drawn(KNOWN[name]))
    assert loss == pytest.approx(reference(name, wide, documents, scores), rel=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    slopes = {
        id(variable): gradient
        for variable, gradient in zip(container_of(name).trainable_variables, gradients, strict=True)
    }
    kinds: dict[str, dict[str, Any]] = {}
    for full, variable in container_of(name).variables_by_name().items():
        kinds.setdefault(".".join(full.split(".")[-2:]), {})[full] = slopes[id(variable)]
    for kind, of_kind in kinds.items():
        size = np.sqrt(sum(float((gradient**2).sum()) for gradient in of_kind.values()))
        step = 1e-5 / max(size, 1e-6)  # a longer one sends a token to other experts

        def moved(by: float, of_kind: dict[str, Any] = of_kind) -> float:
            there = by_name.map_named(
                lambda full, array: array + by * of_kind[full] if full in of_kind else array, wide
            )
            return reference(name, there, documents, scores)

        slope = (moved(step) - moved(-step)) / (2 * step)
        assert slope == pytest.approx(size**2, rel=5e-3, abs=1e-6), kind


@pytest.mark.numerical
@pytest.mark.essential
@pytest.mark.parametrize("name", LESS)
def test_a_document_that_changes_moves_no_bit_of_another(name: str) -> None:
    before, after = row_of(TOKENS[:13], TOKENS[-8:]), row_of([5, *TOKENS[:12]], TOKENS[-8:])
    was, now = (np.asarray(losses_of(name)(inputs, training=False))[0] for inputs in (before, after))
    other = slice(FIRST, FIRST + SECOND - 1)
    np.testing.assert_array_equal(was[other], now[other])
    assert (was[:FIRST] != now[:FIRST]).any()
    from keras import ops

    counted = np.zeros((1, LENGTH), np.float32)
    counted[0, other] = 1.0
    of_other = {"weights": ops.convert_to_tensor(counted)}
    one, two = (loss_and_gradients(name, inputs | of_other) for inputs in (before, after))
    assert one[0] == two[0]
    for gradient, again in zip(one[1], two[1], strict=True):
        np.testing.assert_array_equal(gradient, again)


ROUTED = [name for name in NAMES if (experts := CONFIGS[name].feedforward.experts) and experts.router_loss]


def one_text(padding: int) -> dict[str, Any]:
    """A row of all the tokens that transformers read, and padding behind them."""
    from keras import ops

    size = len(TOKENS) + padding
    held = np.arange(size)[None] < len(TOKENS)
    given = {
        "token_ids": np.array([[*TOKENS, *[7] * padding]]),
        "targets": np.zeros((1, size)),
        "positions": np.arange(size)[None] * held,
        "segment_ids": held,
    }
    given = {name: ops.convert_to_tensor(array.astype("int32")) for name, array in given.items()}
    return given | {"weights": ops.convert_to_tensor(held.astype("float32"))}


@pytest.mark.parametrize("name", ROUTED)
def test_unbalanced_routers_cost_what_they_cost_in_transformers(name: str) -> None:
    found = losses_of(name).weighted(one_text(5), training=True)
    assert float(found.router_loss) == pytest.approx(float(LOGITS[f"{name}.router_loss"]), rel=1e-5)


def test_routers_learn_from_what_they_cost() -> None:
    """Also where layers are computed again for the gradient."""
    name = "mixtral"
    inputs = one_text(5)
    found = []
    losses = losses_of(name)
    for remat in (False, True):
        losses.remat = remat
        sums = differentiated(losses, container_of(name), inputs, lambda of: of.router_loss)
        found.append(sums[1])
    losses.remat = False
    behind = ("head", "final_norm", "layers_3_down", "layers_3_gate", "layers_3_up")  # the last router
    variables = container_of(name).trainable_variables
    for variable, plain, again in zip(variables, *found, strict=True):
        np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-6, err_msg=variable.path)
        assert (np.abs(plain).max() > 0) == (not any(part in variable.path for part in behind)), variable.path
