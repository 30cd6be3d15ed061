"""A sampler as a plugin's author would write one: locally typical sampling (Meister et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kerasgen.samplers import arithmetic
from kerasgen.samplers.base import TokenSampler, require


@dataclass(frozen=True)
class Typical(TokenSampler):
    """A draw among tokens whose surprise lies within `width` nats of the expected one, and the nearest in any case."""

    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width >= 0, "`width` must be at least 0", f"width={self.width!r}")

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        logprobs = arithmetic.log_softmax(xp, logits)
        possible = logprobs > float("-inf")
        surprise = -xp.where(possible, logprobs, xp.zeros_like(logprobs))
        expected = xp.sum(arithmetic.softmax(xp, logits) * surprise, axis=-1, keepdims=True)
        distance = xp.where(possible, xp.abs(surprise - expected), float("inf"))
        nearest = xp.min(distance, axis=-1, keepdims=True)
        far = distance > xp.maximum(nearest, self.width)
        return arithmetic.draw(xp, arithmetic.exclude(xp, logits, far), uniforms)
