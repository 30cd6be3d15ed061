"""Tiny Llamas with Llama 3.1's scaled positions and tokenizers of the kinds that Llamas have."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import byte_level
from tiny import roughen, undrawn

from kerasgen import ByteLevelBPE, LanguageModel, backend
from kerasgen.models.base import CONTEXT_LENGTH

# What a text of 256 tokens turns: of four frequencies one is kept, one blended, and two are divided.
SCALED = {
    "rope_max_wavelength": 1000.0,
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 64,
}
SIZES = {"num_layers": 2, "hidden_dim": 32, "num_query_heads": 4, "num_key_value_heads": 2, "intermediate_dim": 64}
LONGEST = 300
TOKENS = [*range(0, 390, 10)]


def tokenizer(kind: str) -> ByteLevelBPE:
    """A byte-level tokenizer of one of `byte_level.KINDS`, read from transformers' files."""
    with tempfile.TemporaryDirectory() as folder:
        return ByteLevelBPE.from_directory(byte_level.directory(Path(folder), kind))


def llama(kind: str = "llama3", *, tied: bool = False, seed: int = 3, **further: Any) -> LanguageModel:
    """A Llama of about 40,000 weights whose epsilon, base and scaling are not the usual ones."""
    backend.use()
    import keras_hub

    own = tokenizer(kind)
    settings = {**SIZES, **SCALED, "layer_norm_epsilon": 1e-4, "tie_word_embeddings": tied, **further}
    with undrawn():
        backbone = keras_hub.models.Llama3Backbone(vocabulary_size=own.vocabulary_size, dtype="float32", **settings)
    roughen(backbone, seed)
    causal_lm = keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None)
    return LanguageModel(causal_lm=causal_lm, tokenizer=own, source="a llama", metadata={CONTEXT_LENGTH: LONGEST})
