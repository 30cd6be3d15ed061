"""`litertlm`: a bundle that LiteRT-LM opens: exporter, bundle, runtime."""

from __future__ import annotations

from kerasgen.exporters.litertlm.exporter import LiteRtLmExporter

__all__ = ["LiteRtLmExporter"]
