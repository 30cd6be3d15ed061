"""What the compiled engine computes with lies in memory once, and follows the Keras variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import installing
import keras
import numpy as np
import pytest
from contained import Contained
from tiny import tiny_gpt2
from toys import encode, smallest_llama, texts

import kerasgen as kg
from kerasgen.generation import engine_registry, generate_ids
from kerasgen.models import tensorflow_lending
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.sampling import Greedy
from kerasgen.tuners import adapters

pytestmark = pytest.mark.numerical


def generated(model: LanguageModel) -> list[int]:
    return list(generate_ids(model, [[5, 6, 7]], sampler=Greedy(), max_new_tokens=6)[0][0].token_ids)


def lent(model: LanguageModel) -> list[bool]:
    matrices = [variable for variable in model.network.variables if len(variable.shape) > 1]
    if keras.config.backend() == "tensorflow":
        # Tables lie for JAX as they do for TensorFlow, so both use one array.
        return [tensorflow_lending.is_lent(variable) for variable in matrices if not is_table(variable)]
    return [variable._value is None for variable in matrices] if keras.config.backend() == "jax" else []


def is_table(variable: Any) -> bool:
    return variable.name in ("embeddings", "position_embeddings")


@pytest.mark.parametrize("make", [tiny_gpt2, smallest_llama, Contained().load])
def test_variables_lend_their_numbers_and_get_them_back(make) -> None:
    model = make()
    before = [np.array(variable) for variable in model.network.variables]
    ids = generated(model)
    assert all(lent(model))
    assert lent(model) or keras.config.backend() == "torch"
    engine = engine_registry.resolve(model)
    state = engine.weights
    for variable, numbers in zip(model.network.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), numbers, err_msg=variable.path)
    assert not any(lent(model))
    assert engine_registry.resolve(model).weights is state, "nothing has changed"
    assert generated(model) == ids


def test_what_is_assigned_is_computed_with_whether_lent_or_not() -> None:
    model, other = tiny_gpt2(seed=3), tiny_gpt2(seed=4)
    ids, wanted = generated(model), generated(other)
    assert ids != wanted
    numbers = [np.array(variable) for variable in other.network.variables]
    for variable, array in zip(model.network.variables, numbers, strict=True):
        variable.assign(array)
    assert generated(model) == wanted
    for variable, array in zip(model.network.variables, numbers, strict=True):
        np.testing.assert_array_equal(np.array(variable), array, err_msg=variable.path)


@pytest.mark.skipif("keras.config.backend() != 'jax'", reason="other backends' variables lend nothing")
def test_a_value_asked_for_while_a_graph_is_traced_is_no_tracer() -> None:
    import jax

    model = tiny_gpt2(seed=3)
    variable = model.backbone.token_embedding.embeddings
    numbers = np.array(variable)
    generated(model)
    assert variable._value is None
    total = jax.jit(lambda x: x + variable.value.sum())(0.0)
    np.testing.assert_allclose(total, numbers.sum(), rtol=1e-4)
    np.testing.assert_array_equal(np.array(variable), numbers)


def _tuned(name: str, model: LanguageModel, folder: Path) -> tuple[kg.TuneReport, list[int]]:
    settings: dict[str, Any] = {"max_steps": 4, "batch_size": 4, "sequence_length": 32, "precision": "float32"}
    tuner = kg.FullTuner(**settings) if name == "full" else kg.LoraTuner(targets=("all",), rank=2, **settings)
    report = tuner.tune(model, encode(model.tokenizer, texts(20)), seed=1, directory=folder, verbose=0)
    return report, generated(model)


@pytest.mark.one_backend
@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_a_model_that_has_written_is_tuned_as_one_that_has_not(tuner: str, tmp_path: Path) -> None:
    """And what it learned is what it writes with then, adapters merged or not, its weights once in memory again."""
    written, fresh = smallest_llama(), smallest_llama()
    generated(written)
    assert all(lent(written))
    report, ids = _tuned(tuner, written, tmp_path / "written")
    if tuner == "full":
        assert all(lent(written))
    beside, wanted = _tuned(tuner, fresh, tmp_path / "fresh")
    assert report.losses == beside.losses
    assert ids == wanted
    for one, other in zip(written.network.weights, fresh.network.weights, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other), err_msg=one.path)
    if tuner == "lora":
        adapters.merge(written)
        assert generated(written) == wanted
        assert all(lent(written))


_GENERATES = """
import json
import os
from collections.abc import Callable
from pathlib import Path
import numpy as np
from tiny import tiny_gpt2, undrawn
from kerasgen import devices
from kerasgen.generation import jax_weights
with undrawn():
    model = tiny_gpt2(num_layers=6, hidden_dim=512, num_heads=8, intermediate_dim=2048, max_sequence_length=40_000)
held = sum(np.asarray(variable).nbytes for variable in model.network.weights)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = devices.peak_memory_bytes()
jax_weights.engine_of(model)
peak = devices.peak_memory_bytes()
Path("/proc/self/clear_refs").write_text("5")
print(json.dumps([held, peak - before, devices.peak_memory_bytes() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif("keras.config.backend() == 'torch'", reason="torch's variables lend nothing")
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process can't begin anew")
def test_an_engine_is_made_in_the_memory_of_the_variables() -> None:
    """Of 160 MB: the table of positions, half of them, is not copied, and what was freed is given back.

    TensorFlow keeps what was freed, and gives it to the engine, layer by layer.
    """
    held, more_at_most, more_at_the_end = installing.child(_GENERATES, Path(__file__).parents[1] / "support")
    assert more_at_most < 0.4 * held
    assert more_at_the_end < (0.1 if keras.config.backend() == "jax" else 0.3) * held


def _merged(model: LanguageModel, folder: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 3, "batch_size": 4, "sequence_length": 32, "precision": "float32"}
    tuner = kg.LoraTuner(targets=("all",), rank=2, learning_rate=0.1, **settings)
    tuner.tune(model, encode(model.tokenizer, texts(20)), seed=1, directory=folder, verbose=0)
    adapters.merge(model)


def _loaded(model: LanguageModel, folder: Path) -> None:
    path = folder / "other.weights.h5"
    tiny_gpt2(seed=4).causal_lm.save_weights(path)
    model.causal_lm.load_weights(path)


def _stepped(model: LanguageModel, _: Path) -> None:
    variables = model.network.trainable_variables
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build(variables)
    optimizer.apply([keras.ops.ones(variable.shape) * 0.3 * (-1) ** n for n, variable in enumerate(variables)])


def _permuted(model: LanguageModel, _: Path) -> None:
    """Give rows of the table to other tokens; the numbers in it are the same ones."""
    table = model.backbone.token_embedding.embeddings
    table.assign(keras.ops.convert_to_numpy(table)[::-1])


def _permuted_by_rows(model: LanguageModel, folder: Path) -> None:
    """The same as TensorFlow writes the gradients of single rows, after which the table has no view."""
    if keras.config.backend() != "tensorflow":
        _permuted(model, folder)
        return
    import tensorflow as tf

    table = model.backbone.token_embedding.embeddings
    numbers = keras.ops.convert_to_numpy(table)
    table.value.scatter_update(tf.IndexedSlices(tf.constant(numbers[:1]), tf.constant([0])))
    _logprob(model, [5, 6, 7, 8])
    table.value.scatter_update(tf.IndexedSlices(tf.constant(numbers[::-1]), tf.range(len(numbers))))


CHANGES: dict[str, Callable[[LanguageModel, Path], object]] = {
    "rows in another order": _permuted,
    "rows in another order, row by row": _permuted_by_rows,
    "load_weights": _loaded,
    "an optimizer": _stepped,
    "merged adapters": _merged,
    "int8": lambda model, _: model.causal_lm.quantize("int8"),
}


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_weights_is_seen_at_the_next_call(change: str, tmp_path: Path) -> None:
    """Compared with the logits of the model's own layers, twice in turn: what was read before is not kept."""
    model = tiny_gpt2(seed=3)
    prompt = [5, 6, 7, 8]
    before = _logprob(model, prompt)
    assert _logprob(model, prompt) == before
    CHANGES[change](model, tmp_path)
    after = _logprob(model, prompt)
    assert after[0] == pytest.approx(_own_logprob(model, prompt, after[1]), abs=2e-3)
    assert abs(after[0] - before[0]) > (1e-5 if change == "int8" else 1e-2)


def _logprob(model: LanguageModel, prompt: list[int]) -> tuple[float, int]:
    """Return the log-probability of the next token, the likeliest one, and that token."""
    text = generate_ids(model, [prompt], sampler=Greedy(), max_new_tokens=1, logprobs=True)[0][0]
    return text.logprobs[0], text.token_ids[0]


def _own_logprob(model: LanguageModel, prompt: list[int], token: int) -> float:
    ids = [model.tokenizer.start_token_id, *prompt]
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), "int32")}
    logits = np.asarray(keras.ops.convert_to_numpy(model.causal_lm(inputs)), np.float64)[0, -1]
    return float(logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max())
