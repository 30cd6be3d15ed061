"""Plugin template: writes a new package with plugins whose tests, types and lint pass as they stand."""

from __future__ import annotations

from kerasgen.plugin_template.writing import write

__all__ = ["write"]
