"""`saved_model`: a TensorFlow SavedModel that generates: exporter, graph, runtime."""

from __future__ import annotations

from kerasgen.exporters.saved_model.exporter import SavedModelExporter

__all__ = ["SavedModelExporter"]
