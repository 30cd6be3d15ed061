"""TensorFlow's executor of the block computes what transformers and KerasHub do, in each graph that runs it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_llama
import pytest
from described import BY_LENGTH, CONFIGS, LLAMA, TOKENS, drawn
from tiny import tiny_gpt2, tiny_llama, tiny_opt

from kerasgen.decoder.config import AlibiPositions, RotaryPositions
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.decoder.rotary_scaling import DynamicScaling, LongRopeScaling
from kerasgen.decoder.weights import map_named
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures import keras_weights

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.one_backend]

LOGITS = np.load(Path(__file__).parents[2] / "decoder" / "transformers_logits.npz")
IDS = np.array([[3, 17, 4, 29, 8], [2, 30, 13, 9, 25]], np.int32)
LENGTHS = (12, 9)  # of two prompts in one batch
STEPS = 8  # longer than a window

# These differ by functions that other executors take too, whose tests hold them, or by traits that others have.
SHARED = {"opt", "llama_linear", "llama_llama3", "llama_yarn", "llama_tied_with_biases", "qwen2", "starcoder2_windowed"}
COMPUTED = [name for name in CONFIGS if name not in SHARED | {*BY_LENGTH}]
# What no library here computes beside Llama's other traits, a slow definition does.
BY_HAND = {
    "sinks": replace(LLAMA, attention=replace(LLAMA.attention, sinks=True)),
    "grouped_alibi": replace(LLAMA, positions=AlibiPositions()),
}


def wanted(name):
    """A description, its weights, and the logits after each token."""
    config = BY_HAND.get(name) or CONFIGS[name]
    weights = drawn(config)
    return config, weights, plain_llama.logits(config, weights, TOKENS) if name in BY_HAND else LOGITS[name]


def kept(name, array):
    return tf.constant(array.T if name.endswith(".kernel") else array)


@pytest.mark.parametrize("name", [*COMPUTED, *BY_HAND])
def test_logits_of_texts_that_grow_in_one_batch_are_those_of_transformers(name):
    """Read as a whole; and as prompts of unequal lengths, then step by step, as rows and as columns."""
    from kerasgen.exporters.saved_model import passes, steps
    from kerasgen.exporters.tensorflow import decoder

    config, weights, right = wanted(name)
    decoder.require_computable(config, len(TOKENS))
    rows = map_named(lambda name, array: kept(name, array).numpy(), decoder.prepare(config, weights))
    packing = passes.Packing(rows, stacks=True)
    packed = {name: tf.constant(array) for name, array in packing.packed(rows)}
    weights, traced = packing.unpacked(packed), passes.Passes(config, packing, packed)
    lengths = np.array(LENGTHS, np.int32)
    prompts = np.array([[*TOKENS[:length], *[0] * (max(LENGTHS) - length)] for length in LENGTHS], np.int32)
    more = np.array([[TOKENS[length + n] for length in LENGTHS] for n in range(STEPS)], np.int32)

    hidden, _ = passes.read(config, weights, tf.constant([TOKENS]))
    np.testing.assert_allclose(decoder.logits(config, weights, hidden, passes.multiply)[0], right, atol=1e-4, rtol=0)

    old, mask, first = traced.prefill(packed, tf.constant(prompts), lengths)
    columns = steps.Columns(tuple(map(tf.linalg.matrix_transpose, old.keys)), old.values)
    columns = columns.padded(rows=2, length=max(LENGTHS) + STEPS)
    given = tf.pad(mask, [[0, 0], [0, STEPS]])
    recent = passes.empty(config, 2)
    by_rows, by_columns = [first], [first]
    for step, token in enumerate(more):
        if step == STEPS // 2:  # the second part of the cache is laid to the first
            old, recent = old.followed_by(recent), passes.empty(config, 2)
            mask = tf.concat([mask, tf.ones((2, step), tf.bool)], axis=1)
        where = tf.constant(lengths + step)
        logits, recent = traced.advance(packed, tf.constant(token), where, old, mask, recent)
        by_rows.append(logits)
        at = max(LENGTHS) + step
        places = tf.range(max(LENGTHS) + STEPS)
        seen = given | ((places >= max(LENGTHS)) & (places <= at))
        logits, columns = steps._read(config, decoder.as_columns(weights), tf.constant(token), where, at, seen, columns)
        by_columns.append(logits)
    for found in (by_rows, by_columns):
        for row, length in enumerate(LENGTHS):
            logits = np.stack([step[row] for step in found])
            np.testing.assert_allclose(logits, right[length - 1 : length + STEPS], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "gemma2", "gemma3_text", "gptj", "mixtral", "sinks", "grouped_alibi"]
)
def test_logits_of_tflite_s_graph_are_those_of_transformers(name):
    """Prompts are read in a chunk whose end is no token of theirs; then a token is read of a part of the cache."""
    from kerasgen.exporters.tensorflow import decoder
    from kerasgen.exporters.tflite.graph import _Module

    config, weights, right = wanted(name)
    module = _Module(config, weights, 24)
    heads, size = config.attention.num_key_value_heads, config.attention.head_dim
    caches = {
        f"kv_cache_{kind}_{index}": tf.zeros((1, heads, 24, size))
        for kind in "kv"
        for index in range(config.num_layers)
    }
    ids = [*TOKENS[:13], 0, 0, 0]
    hidden, caches = module._read(tf.constant([ids]), tf.range(16), caches, 24)
    found = [decoder.logits(config, module.weights, hidden)[0, :13]]
    for place in range(13, len(TOKENS)):
        hidden, caches = module._read(tf.constant([TOKENS[place : place + 1]]), tf.constant([place]), caches, 22)
        found.append(decoder.logits(config, module.weights, hidden)[0])
    np.testing.assert_allclose(np.concatenate(found), right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_opt, tiny_llama])
def test_hidden_states_are_those_of_kerashub(make):
    from kerasgen.exporters.saved_model import passes
    from kerasgen.exporters.tensorflow import decoder

    model = make(num_layers=2)
    config, weights = keras_weights.decoder_of(model.causal_lm)
    right = np.asarray(model.backbone({"token_ids": IDS, "padding_mask": np.ones_like(IDS)}))
    hidden, _ = passes.read(config, map_named(kept, decoder.prepare(config, weights)), tf.constant(IDS))
    np.testing.assert_allclose(hidden, right, atol=5e-5)


@pytest.mark.parametrize("scaling", [DynamicScaling(2.0, 16), LongRopeScaling((1.0,) * 4, (2.0,) * 4, 16)])
def test_frequencies_of_a_whole_text_are_refused_by_graphs_that_read_parts(scaling):
    from kerasgen.exporters.tensorflow.decoder import require_computable

    config = replace(LLAMA, positions=RotaryPositions(scaling=scaling))
    with pytest.raises(ModelArgumentError, match=r"texts of up to 17 tokens.*Export texts of at most 16 tokens"):
        require_computable(config, 17)
    require_computable(config, 16)  # within which they are fixed


@pytest.mark.parametrize("name", BY_LENGTH)
def test_texts_within_the_trained_length_have_the_frequencies_of_short_ones(name):
    from kerasgen.exporters.saved_model import passes
    from kerasgen.exporters.tensorflow import decoder

    config, weights, _ = wanted(name)
    ids = TOKENS[: config.positions.scaling.original_length]
    decoder.require_computable(config, len(ids))
    weights_of_graph = map_named(kept, decoder.prepare(config, weights))
    hidden, _ = passes.read(config, weights_of_graph, tf.constant([ids]))
    right = NumpyDecoder(config, weights).read(ids)
    np.testing.assert_allclose(decoder.logits(config, weights_of_graph, hidden, passes.multiply)[0], right, atol=1e-4)


@pytest.mark.parametrize("name", ["mistral", "bloom"])
def test_beams_of_tflite_are_refused_where_distances_count(name):
    """Their signature is told which slots a text sees, and not how far back they are."""
    from kerasgen.exporters.tflite.graph import _Module

    with pytest.raises(ModelArgumentError, match="windows or ALiBi"):
        _Module(CONFIGS[name], drawn(CONFIGS[name]), 24).beams_signature(2)
