"""What an evaluation found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts documents.

    Args:
        loss: mean nats per target token; each document's text and its end token are targets.
        bits_per_character: bits per code point of text: the figure to compare models with different vocabularies by.
        documents: how many were scored.
        tokens: target tokens.
        characters: code points of text.
    """

    loss: float
    bits_per_character: float
    documents: int
    tokens: int
    characters: int

    @property
    def perplexity(self) -> float:
        """The exponential of the loss. It is per token, so it can't be compared between vocabularies."""
        return math.exp(self.loss) if self.loss < 709.0 else math.inf

    @property
    def tokens_per_character(self) -> float:
        """Target tokens for each code point of text."""
        return self.tokens / self.characters

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as JSON can hold it."""
        return asdict(self) | {"perplexity": self.perplexity, "tokens_per_character": self.tokens_per_character}

    def __str__(self) -> str:
        return (
            f"{self.bits_per_character:.3f} bits per character, loss {self.loss:.3f} nats a token, perplexity "
            f"{self.perplexity:.1f}, over {self.documents:,} documents with {self.characters:,} characters"
        )
