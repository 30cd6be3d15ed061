"""The sampler contract: a frozen value that says how the next token is chosen."""

from __future__ import annotations

from abc import ABC


class SamplerSpec(ABC):
    """How the next token is chosen. Subclasses are frozen dataclasses; making one imports no Keras."""
