"""The block, by its JAX executor, computes what transformers computes for each trait of the description."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from described import BY_LENGTH, CONFIGS, TOKENS, drawn

from kerasgen.decoder.jax import Cache, JaxDecoder
from kerasgen.decoder.jax_layout import prepare

pytestmark = [pytest.mark.one_backend, pytest.mark.numerical]

LOGITS = np.load(Path(__file__).parent / "transformers_logits.npz")
LENGTHS = (12, 9)  # of two prompts in one batch
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


def compiled(function):
    """The function in a graph that is compiled fast rather than well."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in SHARED | TOGETHER | {*BY_LENGTH}])
def test_logits_of_texts_that_grow_in_one_batch_are_those_of_transformers(name):
    config = CONFIGS[name]
    decoder = JaxDecoder(config, config.vocabulary_size)
    lengths = np.array(LENGTHS, np.int32)
    prompts = np.array([[*TOKENS[:length], *[0] * (max(LENGTHS) + 1 - length)] for length in LENGTHS], np.int32)
    more = np.array([[TOKENS[length + n] for length in LENGTHS] for n in range(STEPS)], np.int32)

    def read(weights):
        begun = caches(config, 2, 0)
        first, _, prompt = decoder.prefill(weights, prompts, lengths, begun, jnp.zeros((2, 0), bool))
        valid = jnp.arange(prompts.shape[1]) < lengths[:, None]

        def step(generated, given):
            slot, token_ids = given
            logits, _, generated = decoder.step(
                weights, token_ids, lengths + slot, prompt, valid, generated, slot, None
            )
            return generated, logits

        slots = jnp.arange(STEPS, dtype=jnp.int32)
        return first, jax.lax.scan(step, caches(config, 2, STEPS, 1), (slots, more))[1]

    first, others = compiled(read)(prepare(drawn(config)))
    for row, length in enumerate(LENGTHS):
        found = np.concatenate([first[None, row], others[:, row]])
        np.testing.assert_allclose(found, LOGITS[name][length - 1 : length + STEPS], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", BY_LENGTH)
def test_angles_that_depend_on_the_text_are_those_of_its_length(name):
    """Keys that were kept have the angles of their time, so that a text is like transformers' if it is read at once."""
    config = CONFIGS[name]
    decoder = JaxDecoder(config, config.vocabulary_size)
    given = (np.array([TOKENS], np.int32), np.array([len(TOKENS)], np.int32), caches(config, 1, 0))
    logits, *_ = compiled(decoder.prefill)(prepare(drawn(config)), *given, np.zeros((1, 0), bool))
    np.testing.assert_allclose(logits[0], LOGITS[name][-1], atol=1e-4, rtol=0)
