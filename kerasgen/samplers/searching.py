"""The samplers that search, under the module name that they had in 0.1.0."""

from __future__ import annotations

from kerasgen import deprecations

__getattr__ = deprecations.moved(
    __name__, {name: f"kerasgen.samplers.lookahead:{name}" for name in ("Beam", "Contrastive")}
)
