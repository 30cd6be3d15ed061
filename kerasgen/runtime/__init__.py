"""Runs exported artefacts, each format in its own runtime and without Keras: `load_artefact`."""

from __future__ import annotations

from kerasgen.runtime.base import Runtime
from kerasgen.runtime.loading import load_artefact

__all__ = ["Runtime", "load_artefact"]
