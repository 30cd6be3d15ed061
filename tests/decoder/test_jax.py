"""The block, by its JAX executor, computes what transformers computes for each trait of the description."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from described import BY_LENGTH, CONFIGS, TOKENS, drawn

from kerasgen.decoder.jax import JaxDecoder
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.decoder.jax_layout import prepare
from kerasgen.generation import jax_chunks, jax_reading

pytestmark = [pytest.mark.one_backend, pytest.mark.numerical]

LOGITS = np.load(Path(__file__).parent / "transformers_logits.npz")
LENGTHS = (12, 9)  # of two prompts in one batch
PLACES = 12  # of each in the cache
STEPS = 8  # longer than a window

# These differ by functions that the NumPy executor takes too, whose test holds them.
SHARED = {"opt", "llama_linear", "llama_llama3", "llama_yarn"}
# Traits that others here have among more.
TOGETHER = {"mistral", "qwen3", "llama_tied_with_biases", "starcoder2_windowed"}


def caches(config, prompts, length, *slots):
    heads, size = config.attention.num_key_value_heads, config.attention.head_dim
    keys = jnp.zeros((prompts, heads, size, *slots, length))
    values = jnp.zeros((prompts, heads, *slots, length, size))
    return Cache((keys,) * config.num_layers, (values,) * config.num_layers)


def read(decoder, weights, prompts, places):
    """Read prompts in chunks of two tiles of four columns: their hidden states one after another, and their cache.

    Blocks of keys have 16 places, so a prompt of 20 tokens has two, and the caches of two prompts meet within one.
    """
    rows = range(len(prompts))
    parts = jax_chunks.cut(prompts, rows, [0] * len(prompts), places, sizes=(8,), tiles=(4,))
    chunks = jax.tree.map(lambda *arrays: np.stack(arrays), *(part.chunk for part in parts))

    def further(cache, chunk):
        states, cache = decoder.read(weights, chunk, cache)
        return cache, states

    cache, states = jax.lax.scan(further, caches(decoder.config, 1, len(prompts) * places), chunks)
    states = states.reshape(-1, states.shape[-1])
    owners, at = np.concatenate([part.rows for part in parts]), chunks.places.reshape(-1)
    order = [np.flatnonzero(owners == row) for row in rows]
    assert all(at[own].tolist() == list(range(len(prompt))) for own, prompt in zip(order, prompts, strict=True))
    return [states[own] for own in order], jax_reading.in_slots(cache, len(prompts))


def compiled(function):
    """The function in a graph that is compiled fast rather than well."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in SHARED | TOGETHER | {*BY_LENGTH}])
def test_logits_of_texts_that_grow_in_one_batch_are_those_of_transformers(name):
    config = CONFIGS[name]
    decoder = JaxDecoder(config, config.vocabulary_size)
    lengths = np.array(LENGTHS, np.int32)
    more = np.array([[TOKENS[length + n] for length in LENGTHS] for n in range(STEPS)], np.int32)

    def follow(weights):
        states, prompt = read(decoder, weights, [TOKENS[:length] for length in LENGTHS], PLACES)
        valid = jnp.arange(PLACES) < lengths[:, None]

        def step(generated, given):
            slot, token_ids = given
            logits, _, generated = decoder.step(
                weights, token_ids, lengths + slot, prompt, valid, generated, slot, None
            )
            return generated, logits

        slots = jnp.arange(STEPS, dtype=jnp.int32)
        others = jax.lax.scan(step, caches(config, 2, STEPS, 1), (slots, more))[1]
        return [decoder.logits(weights, own) for own in states], others

    begun, others = compiled(follow)(prepare(drawn(config)))
    for row, length in enumerate(LENGTHS):
        found = np.concatenate([begun[row], others[:, row]])
        np.testing.assert_allclose(found, LOGITS[name][: length + STEPS], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", BY_LENGTH)
def test_angles_that_depend_on_the_text_are_those_of_its_length(name):
    """Keys that were kept have the angles of their time, so that a text is like transformers' if it is read at once."""
    config = CONFIGS[name]
    decoder = JaxDecoder(config, config.vocabulary_size)

    def whole(weights):
        (states,), _ = read(decoder, weights, [TOKENS], 32)
        return decoder.logits(weights, states[-1:])

    np.testing.assert_allclose(compiled(whole)(prepare(drawn(config))), LOGITS[name][-1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gpt_oss_held", "bloom", "gemma2"])
def test_an_accelerator_takes_all_tiles_together(name, monkeypatch):
    """Sinks and windows, ALiBi, and soft caps."""
    config = CONFIGS[name]
    decoder = JaxDecoder(config, config.vocabulary_size)

    def whole(weights):
        states, _ = read(decoder, weights, [TOKENS, TOKENS[:7]], 32)
        return [decoder.logits(weights, own) for own in states]

    weights = prepare(drawn(config))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for found in compiled(whole)(weights):
        np.testing.assert_allclose(found, LOGITS[name][: len(found)], atol=1e-4, rtol=0)
