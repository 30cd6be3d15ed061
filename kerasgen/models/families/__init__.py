"""Architectures that kerasgen computes by itself, one file each: what a backbone's layers mean, and its foreign names.

To add one, write a module with a `DecoderFamily` and name it in `_HOMES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kerasgen.models.families.base import DecoderFamily, DecoderLayer, DecoderShape, DecoderWeights

# KerasHub's backbone class, and the module of its family.
_HOMES = {"GPT2Backbone": "gpt2", "OPTBackbone": "opt"}


def names() -> list[str]:
    """Return the names of the backbone classes that have a family."""
    return sorted(_HOMES)


def family_of(causal_lm: Any) -> DecoderFamily | None:
    """Return the family of a KerasHub causal model, or None if kerasgen doesn't compute it by itself."""
    backbone = causal_lm.backbone
    if type(backbone).__name__ not in _HOMES:
        return None
    family = family_named(type(backbone).__name__)
    return family if family.has_its_activation(backbone) else None


def family_named(backbone: str) -> DecoderFamily:
    """Return the family of a KerasHub backbone class by its name, which is one of `names`."""
    family: DecoderFamily = import_module(f"{__name__}.{_HOMES[backbone]}").FAMILY
    return family


__all__ = ["DecoderFamily", "DecoderLayer", "DecoderShape", "DecoderWeights", "family_named", "family_of", "names"]
