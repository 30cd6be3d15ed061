"""Plugins: names to classes through entry points, loaded on use and never before."""

from __future__ import annotations

from kerasgen.plugins.entry_points import DISTRIBUTION, KINDS
from kerasgen.plugins.registry import Registry

__all__ = ["DISTRIBUTION", "KINDS", "Registry"]
