"""A model of a few thousand weights, for tests: seeded, untrained, and loud enough that its texts don't stand still."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasgen.models import hub_import
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.characters import whole_character_bpe


def small_model(texts: Sequence[str] = (), *, seed: int = 0) -> LanguageModel:
    """Return a new GPT-2 of one layer, two heads and 64 positions, whose tokenizer spells any text.

    Args:
        texts: whose characters get ids of their own, where they come twice; others are spelled in bytes.
        seed: of its weights.
    """
    keras_hub: Any = hub_import.load()
    tokenizer = whole_character_bpe(texts, vocabulary_size=257 + len(set("".join(texts))))
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
        dropout=0.1,
        dtype="float32",
    )
    rng = np.random.default_rng(seed)
    for variable in backbone.weights:
        noise = 0.2 * rng.standard_normal(variable.shape).astype("float32")
        variable.assign(1.0 + noise if variable.path.endswith("gamma") else noise)
    causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source="starter")


@functools.cache
def shared_small_model() -> LanguageModel:
    """Return the small model of seed 0, one for all suites that only read it."""
    return small_model()
