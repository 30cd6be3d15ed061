"""Logits to the second most likely token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kerasgen.samplers.base import TokenSampler


@dataclass(frozen=True)
class SecondBest(TokenSampler):
    """The second most likely token each time, or the only one.

    Args:
        patience: texts are none the better for it.
    """

    draws: ClassVar[bool] = False

    patience: int = 1

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return the id of each row's second highest logit."""
        best = xp.argmax(logits, axis=-1)
        others = xp.where(xp.arange(logits.shape[-1])[None, :] == best[:, None], float("-inf"), logits)
        return xp.where(xp.max(others, axis=-1) == float("-inf"), best, xp.argmax(others, axis=-1))
