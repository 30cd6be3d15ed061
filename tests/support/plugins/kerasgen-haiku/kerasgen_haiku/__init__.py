"""A corpus and a sampler that are not kerasgen's own."""

from kerasgen_haiku._sampler import SecondBest

__all__ = ["SecondBest"]
