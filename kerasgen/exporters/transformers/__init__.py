"""`transformers`: a directory that Hugging Face's transformers loads."""

from __future__ import annotations

from kerasgen.exporters.transformers.exporter import TransformersExporter

__all__ = ["TransformersExporter"]
