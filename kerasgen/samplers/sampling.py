"""Samplers that choose one token at a time: greedy, random, top-k, top-p and min-p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kerasgen.bounds import PositiveInt, PositiveShare, Share
from kerasgen.samplers import arithmetic
from kerasgen.samplers.base import TokenSampler


@dataclass(frozen=True)
class Greedy(TokenSampler):
    """Choose the most likely token; among equally likely ones the lowest id."""

    draws: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...] | None] = ()

    @property
    def max_candidates(self) -> int:
        """One."""
        return 1

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return the id of each row's highest logit."""
        return arithmetic.highest(xp, logits)


@dataclass(frozen=True)
class Random(TokenSampler):
    """Draw from the model's whole distribution."""

    inputs: ClassVar[tuple[str, ...] | None] = ()

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row, drawn by its uniform."""
        return arithmetic.draw(xp, logits, uniforms)


@dataclass(frozen=True)
class TopK(TokenSampler):
    """A draw among the `k` most likely tokens (Fan et al. 2018, section 5.4).

    Args:
        k: at least 1; more than the vocabulary has means all of it. Of equals at the edge, lower ids stay.
    """

    k: PositiveInt = 5
    inputs: ClassVar[tuple[str, ...] | None] = ("k",)
    positive: ClassVar[tuple[str, ...]] = ("k",)

    @property
    def max_candidates(self) -> int:
        """`k`."""
        return self.k

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row, drawn among its `k` highest."""
        return arithmetic.draw_top_k(xp, logits, self.k, uniforms)


@dataclass(frozen=True)
class TopP(TokenSampler):
    """A draw among the fewest most likely tokens that hold `p` of the probability (Holtzman et al. 2020, section 3.1).

    Args:
        p: above 0 and at most 1; 1 draws from all. The token that crosses `p` is the last one to stay.
    """

    p: PositiveShare = 0.9
    inputs: ClassVar[tuple[str, ...] | None] = ("p",)
    positive: ClassVar[tuple[str, ...]] = ("p",)

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row, drawn from its nucleus."""
        return arithmetic.draw_top_p(xp, logits, self.p, uniforms)


@dataclass(frozen=True)
class MinP(TokenSampler):
    """Draw among the tokens at least `p` times as likely as the most likely one (Nguyen et al. 2024, section 3).

    Args:
        p: from 0 to 1; 0 draws from all, 1 only among the most likely.
    """

    p: Share = 0.05
    inputs: ClassVar[tuple[str, ...] | None] = ("p",)

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row, drawn among the tokens that are likely enough."""
        return arithmetic.draw(xp, arithmetic.min_p_mask(xp, logits, self.p), uniforms)
