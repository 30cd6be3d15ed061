"""A tiny model that no class of KerasHub can hold, with a tokenizer of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from described import CONFIGS
from tiny import GPT2_END, tiny_vocabulary

import kerasgen as kg
from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.base import LanguageModel

REASON = "KerasHub has no class of this architecture."
VOCABULARY = 300


def config_of(name: str = "olmo2") -> DecoderConfig:
    """The description of an architecture of `described`, of two layers and 300 ids, without a limit of positions."""
    found = CONFIGS[name]
    windows, positions = found.attention.windows[-2:], found.positions_by_layer[-2:]
    part = found.feedforward
    if part.experts is not None:
        part = replace(part, experts=replace(part.experts, layers=part.experts.layers[:2]))
    return replace(
        found,
        feedforward=part,
        vocabulary_size=VOCABULARY,
        num_layers=2,
        max_sequence_length=None,
        attention=replace(found.attention, windows=windows),
        positions_by_layer=positions,
    )


@dataclass(frozen=True)
class Contained(kg.ModelSource):
    """Brings it; the same weights each time."""

    name: str = "olmo2"

    def load(self) -> LanguageModel:
        from kerasgen import backend

        backend.use()
        from described import drawn

        from kerasgen.models.container import Container

        vocabulary, merges = tiny_vocabulary(VOCABULARY)
        tokenizer = kg.ByteLevelBPE(vocabulary, merges, start_token=GPT2_END, end_token=GPT2_END, pad_token=GPT2_END)
        container = Container(config_of(self.name), context_length=128)
        container.assign(drawn(container.config))
        return LanguageModel(None, tokenizer, f"contained:{self.name}", container=container, hub_reason=REASON)
