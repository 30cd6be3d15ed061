"""A draw that both a number of tokens and their probability bound, as requests may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kerasgen.samplers import arithmetic
from kerasgen.samplers.base import TokenSampler, is_number, is_whole, require


@dataclass(frozen=True)
class TopKTopP(TokenSampler):
    """A draw from the nucleus of the `k` most likely tokens, as transformers applies `top_k` before `top_p`.

    Args:
        k: at least 1.
        p: above 0 and at most 1.
    """

    k: int = 50
    p: float = 0.9
    inputs: ClassVar[tuple[str, ...] | None] = ("k", "p")
    positive: ClassVar[tuple[str, ...]] = ("k", "p")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(is_whole(self.k, 1), "`top_k` must be a whole number of at least 1", f"top_k={self.k!r}")
        require(is_number(self.p) and 0 < self.p <= 1, "`top_p` must be above 0 and at most 1", f"top_p={self.p!r}")

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row."""
        return arithmetic.draw_top_p(xp, arithmetic.top_k_mask(xp, logits, self.k), self.p, uniforms)
