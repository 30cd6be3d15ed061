"""A sampler that draws among the tokens whose probability comes near the highest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kerasgen.samplers import arithmetic
from kerasgen.samplers.base import TokenSampler, is_number, require


@dataclass(frozen=True)
class PlaceholderSampler(TokenSampler):
    """A draw among tokens of at least `share` times the square of the highest probability.

    Args:
        share: from 0, which lets all tokens in, to 1.
    """

    contract_version: ClassVar[int] = 1
    # The settings that `choose` computes with: compiled once, it serves all their values.
    inputs: ClassVar[tuple[str, ...] | None] = ("share",)

    share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        is_share = is_number(self.share) and 0 <= self.share <= 1
        require(is_share, "`share` must be from 0 to 1", f"share={self.share!r}")

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row; `xp` is numpy, or keras.ops inside a compiled graph."""
        probabilities = arithmetic.softmax(xp, logits)
        highest = xp.max(probabilities, axis=-1, keepdims=True)
        kept = arithmetic.exclude(xp, logits, probabilities < self.share * highest * highest)
        return arithmetic.draw(xp, kept, uniforms)
