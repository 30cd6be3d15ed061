"""`preset`: a KerasHub preset."""

from __future__ import annotations

from kerasgen.exporters.preset.exporter import PresetExporter

__all__ = ["PresetExporter"]
