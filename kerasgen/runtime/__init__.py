"""Runs exported artefacts, each format in its own runtime and without Keras: `load`, or `kerasgen.load_artefact`."""

from __future__ import annotations

from kerasgen.runtime.base import Runtime
from kerasgen.runtime.loading import load

__all__ = ["Runtime", "load"]
