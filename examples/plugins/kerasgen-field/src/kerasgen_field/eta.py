"""`eta`: a draw among the tokens above a threshold that follows the entropy (Hewitt et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kerasgen.samplers import arithmetic
from kerasgen.samplers.base import TokenSampler, is_number, require


@dataclass(frozen=True)
class Eta(TokenSampler):
    """A draw among tokens of at least `min(epsilon, sqrt(epsilon) * exp(-entropy))`.

    The likeliest token is always among them. Source: Hewitt, Manning and Liang, "Truncation Sampling as Language Model
    Desmoothing", 2022, section 4.2, where 0.0003 to 0.004 served best.

    Args:
        epsilon: above 0, and less than 1; less lets more tokens in.
    """

    contract_version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...] | None] = ("epsilon",)
    positive: ClassVar[tuple[str, ...]] = ("epsilon",)

    epsilon: float = 0.002

    def __post_init__(self) -> None:
        super().__post_init__()
        is_between = is_number(self.epsilon) and 0 < self.epsilon < 1
        require(is_between, "`epsilon` must be above 0 and less than 1", f"epsilon={self.epsilon!r}")

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row; `xp` is numpy, or keras.ops inside a compiled graph."""
        probabilities = arithmetic.softmax(xp, logits)
        # p log p is 0 where p is: an excluded token adds nothing to the entropy.
        logs = xp.log(xp.where(probabilities > 0, probabilities, xp.ones_like(probabilities)))
        entropy = -xp.sum(probabilities * logs, axis=-1, keepdims=True)
        # Kept in the type of the probabilities, whether `epsilon` is a number or a tensor.
        epsilon = self.epsilon * xp.ones_like(entropy)
        threshold = xp.minimum(epsilon, xp.sqrt(epsilon) * xp.exp(-entropy))
        likeliest = xp.max(probabilities, axis=-1, keepdims=True)
        kept = arithmetic.exclude(xp, logits, probabilities < xp.minimum(threshold, likeliest))
        return arithmetic.draw(xp, kept, uniforms)
