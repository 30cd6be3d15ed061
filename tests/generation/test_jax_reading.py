"""Prompts read in chunks by JAX's engine have the logits of the whole forward pass, and each beginning is read once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from described import CONFIGS, SIZES, drawn

from kerasgen import Greedy
from kerasgen.decoder.jax_layout import prepare
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.generation import generate_ids, jax_chunks
from kerasgen.generation.jax_chunks import SIZES as CHUNKS
from kerasgen.generation.jax_chunks import Beginning
from kerasgen.generation.jax_engine import JaxEngine

pytestmark = [pytest.mark.one_backend]

# Windows in some layers, grouped heads and soft caps; rotary positions, so that texts may be long.
GEMMA = CONFIGS["gemma2"]
CONFIG = replace(GEMMA, num_layers=2, attention=replace(GEMMA.attention, windows=(6, None)), max_sequence_length=None)
RNG = np.random.default_rng(7)


class Numbers:
    """A tokenizer that is asked for nothing but its numbers."""

    start_token_id = None
    end_token_id = pad_token_id = 0
    end_token_ids = (0,)
    vocabulary_size = SIZES["vocabulary_size"]


def text(length: int, *, after: tuple[int, ...] = ()) -> tuple[int, ...]:
    return (*after, *RNG.integers(0, SIZES["vocabulary_size"], length).tolist())


class Counting(JaxEngine):
    """An engine that counts the tokens that it reads."""

    tokens = 0

    def read(self, chunk: Any, cache: Any) -> Any:
        self.tokens += int(chunk.counts.sum())
        return super().read(chunk, cache)


@pytest.fixture(scope="module")
def weights() -> Any:
    return drawn(CONFIG)


@pytest.fixture(scope="module")
def engine(weights: Any) -> Counting:
    return Counting(cast(Any, Numbers()), CONFIG, prepare(weights))


def read_by(engine: Counting, weights: Any, prompts: list[tuple[int, ...]]) -> int:
    """Check the logits and hidden states after all tokens of prompts, and return how many tokens were read."""
    before = engine.tokens
    session = engine.open(prompts, [len(prompt) + 4 for prompt in prompts])
    read = engine.tokens - before
    wanted = [NumpyDecoder(CONFIG, weights).read(prompt) for prompt in prompts]
    np.testing.assert_allclose(session.logits(), [logits[-1] for logits in wanted], atol=1e-4, rtol=0)
    hidden = session.prompt_hidden()
    for states, logits in zip(hidden, wanted, strict=True):
        found = engine.decoder.logits(engine.weights, states[: len(logits)])
        np.testing.assert_allclose(found, logits, atol=1e-4, rtol=0)
    session.append(np.full(len(prompts), 5))  # what was read serves the next step
    after = [NumpyDecoder(CONFIG, weights).read([*prompt, 5])[-1] for prompt in prompts]
    np.testing.assert_allclose(session.logits(), after, atol=1e-4, rtol=0)
    return read


@pytest.mark.numerical
def test_prompts_of_any_lengths_have_the_logits_that_they_have_alone(engine: Counting, weights: Any) -> None:
    """One of several chunks and blocks of keys, and in one batch long and short ones."""
    assert read_by(engine, weights, [text(331)]) == 331
    assert read_by(engine, weights, [text(length) for length in (7, 150, 16, 33, 1)]) == 207


@pytest.mark.numerical
def test_texts_that_share_a_beginning_read_it_once(engine: Counting, weights: Any) -> None:
    system = text(120)
    shots = [text(40, after=system), text(60, after=system)]
    several = [text(9, after=shots[n % 2]) for n in range(6)] + [text(11, after=system), text(5)]
    assert read_by(engine, weights, several) == 120 + 40 + 60 + 6 * 9 + 11 + 5


@pytest.mark.numerical
def test_what_is_remembered_is_not_read_again(engine: Counting, weights: Any) -> None:
    system = text(120)
    session = engine.open([system], [121])
    session.remember()
    # Of a prompt that was read before, the last token is.
    assert read_by(engine, weights, [system, text(70, after=system)]) == 1 + 70
    engine.prompts.clear()


def test_prompts_of_several_batches_share_what_they_begin_with(weights: Any) -> None:
    """In a call of more batches each prompt's own tokens are read, and once those that all or some begin with."""
    engine = Counting(cast(Any, Numbers()), CONFIG, prepare(weights))
    system = text(40)
    shots = text(35, after=system)
    prompts = [text(9, after=shots if n < 3 else system) for n in range(6)]
    settings: dict[str, Any] = {"sampler": Greedy(), "max_new_tokens": 1, "batch_size": 2, "valid_utf8": False}
    found = generate_ids(engine, prompts, **settings)
    assert engine.tokens == 40 + 35 + 6 * 9
    alone = [generate_ids(engine, [prompt], **settings)[0] for prompt in prompts]
    assert engine.tokens == 40 + 35 + 6 * 9 + sum(map(len, prompts))  # a call forgets what was not asked for
    assert [one.token_ids for (one,) in found] == [one.token_ids for (one,) in alone]


def test_beginnings_of_a_call_are_those_that_save_most() -> None:
    system, other = text(50), text(33)
    prompts = [text(5, after=text(40, after=system)) for _ in range(3)] + [text(5, after=other) for _ in range(9)]
    assert jax_chunks.shared([*prompts, prompts[0]]) == [other, system]
    assert jax_chunks.shared(prompts, most=1) == [other]
    assert jax_chunks.shared([system, system]) == jax_chunks.shared([]) == jax_chunks.shared([text(31), (1, 2)]) == []
    assert jax_chunks.shared([system, (*system, 4)]) == [system[:-1]]


def test_prompts_of_all_lengths_are_read_by_few_graphs(weights: Any) -> None:
    engine = Counting(cast(Any, Numbers()), CONFIG, prepare(weights))
    shapes = set()
    for longest in range(1, 1025):
        places = jax_chunks.room(longest)
        assert longest <= places <= max(2 * longest, 16)
        for part in jax_chunks.cut([text(longest)], [0], [0], places):
            shapes.add((len(part.rows), len(part.chunk.counts), places))
    assert len(shapes) <= 34
    for longest in (1, 9, 16):
        engine.open([text(longest)], [20])
    assert engine.compilations == 2  # the chunk's and the output layer's


def test_little_is_computed_for_columns_of_no_text() -> None:
    """Beside what a call costs anyway."""
    for columns in range(1, 2000):
        sizes = jax_chunks.cover(columns, CHUNKS)
        assert 0 <= sum(sizes) - columns < 64
        assert sorted(sizes, reverse=True) == sizes
    lengths = RNG.integers(8, 65, 32).tolist()
    prompts = [text(length) for length in lengths]
    parts = jax_chunks.cut(prompts, range(32), [0] * 32, 64)
    assert sum(len(part.rows) for part in parts) < 1.35 * sum(lengths)


def test_beginnings_are_taken_of_the_first_that_has_as_much_in_common() -> None:
    system = text(100)
    prompts = [(*system, n, 5) for n in (3, 1, 2)] + [(9, *system)]
    assert jax_chunks.beginnings(prompts, [0] * 4) == [
        Beginning(100, 1),
        Beginning(0),
        Beginning(100, 1),
        Beginning(0),
    ]
    assert jax_chunks.beginnings(prompts, [0, 100, 0, 0])[0] == Beginning(100, 1)
    assert jax_chunks.beginnings(prompts, [0] * 4, shared=False) == [Beginning(0)] * 4
    assert jax_chunks.beginnings([(1, 2, 3), (1, 2, 4)], [0, 0]) == [Beginning(0)] * 2  # too little to be worth it
    chain = [Beginning(0), Beginning(1, 0), Beginning(2, 1), Beginning(0)]
    assert jax_chunks.waves(chain) == [[0, 3], [1], [2]]
