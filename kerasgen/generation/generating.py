"""The functions of `kerasgen.generation` under the module name that they had in 0.1.0."""

from __future__ import annotations

from kerasgen import deprecations

_NAMES = ("decode", "generate", "generate_ids", "stream")

__getattr__ = deprecations.moved(__name__, {name: f"kerasgen.generation:{name}" for name in _NAMES})
