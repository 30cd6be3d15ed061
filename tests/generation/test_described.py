"""A decoder that is only described, by JAX's engine: rows of unequal length, beams and a text that goes on alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from described import CONFIGS, SIZES, TOKENS, drawn

from kerasgen.decoder.config import RotaryPositions
from kerasgen.decoder.jax_layout import prepare
from kerasgen.decoder.numpy import NumpyDecoder
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.jax_engine import JaxEngine

pytestmark = [pytest.mark.one_backend, pytest.mark.numerical]

# Grouped heads, normed queries and keys, a window in one layer, rotary bases by layer, and an output layer of its own.
GEMMA = CONFIGS["gemma3_text"]
CONFIG = replace(
    GEMMA,
    num_layers=2,
    attention=replace(GEMMA.attention, windows=(3, None)),
    positions_by_layer=(RotaryPositions(100.0), RotaryPositions(500.0)),
    tied_head=False,
    max_sequence_length=None,
)


class Numbers:
    """A tokenizer that is asked for nothing but its numbers."""

    start_token_id = None
    end_token_id = pad_token_id = 0
    end_token_ids = (0,)
    vocabulary_size = SIZES["vocabulary_size"]


def test_each_text_has_the_logits_that_it_has_alone() -> None:
    weights = drawn(CONFIG)
    engine = JaxEngine(cast(Any, Numbers()), CONFIG, prepare(weights))
    assert engine.max_sequence_length is None
    texts = [TOKENS[:5], TOKENS[:9]]
    session = engine.open(texts, [20, 20])

    def compare() -> None:
        alone = [NumpyDecoder(CONFIG, weights).read(text)[-1] for text in texts]
        np.testing.assert_allclose(session.logits(), alone, atol=1e-4, rtol=0)

    def go_on(parents: list[int], token_ids: list[int]) -> None:
        nonlocal texts
        texts = [[*texts[parent], token_id] for parent, token_id in zip(parents, token_ids, strict=True)]
        session.select(np.array(parents))
        session.append(np.array(token_ids))
        compare()

    compare()
    go_on([0, 0, 1, 1], [1, 2, 3, 4])  # beams
    go_on([1, 1, 3, 2], [5, 6, 7, 8])
    go_on([2], [9])
    session.remember()
    texts = [[*texts[0], 10, 11]]
    session = engine.open(texts, [20])
    compare()


def test_a_text_does_not_pass_the_length_at_which_its_angles_change() -> None:
    """What was read of it has a short text's angles; one that is long from the beginning has those of a long one."""
    config, weights = CONFIGS["phi3_held"], drawn(CONFIGS["phi3_held"])
    engine = JaxEngine(cast(Any, Numbers()), config, prepare(weights))
    turning = 16
    for begun, limit in ((turning - 2, turning + 1), (turning + 1, turning + 4)):
        engine.open([TOKENS[: begun - 3]], [turning + 1]).append(np.array([TOKENS[begun - 3]]))  # would be remembered
        session = engine.open([TOKENS[:begun]], [limit])
        for length in range(begun, limit):
            wanted = NumpyDecoder(config, weights).read(TOKENS[:length])[-1]
            np.testing.assert_allclose(session.logits()[0], wanted, atol=1e-4, rtol=0)
            session.append(np.array([TOKENS[length]]))
    with pytest.raises(GenerateArgumentError, match=f"more than {turning} tokens.*max_length={turning + 1} at most"):
        engine.open([TOKENS[:turning]], [turning + 2])


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "qwen2_moe_held"])
def test_one_text_reads_the_experts_that_it_takes_alone(name: str) -> None:
    """Of four experts, of which a token takes two: kernels are gathered for one row, and computed all for more."""
    config = replace(CONFIGS[name], num_layers=1, attention=replace(CONFIGS[name].attention, windows=()))
    weights = drawn(config)
    session = JaxEngine(cast(Any, Numbers()), config, prepare(weights)).open([TOKENS[:5]], [20])
    for length in (6, 7):
        session.append(np.array([TOKENS[length - 1]]))
        wanted = NumpyDecoder(config, weights).read(TOKENS[:length])[-1]
        np.testing.assert_allclose(session.logits()[0], wanted, atol=1e-4, rtol=0)
