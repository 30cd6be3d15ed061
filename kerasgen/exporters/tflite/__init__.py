"""`tflite`: a flatbuffer that generates on LiteRT: exporter, graph, runtime and the engine `"litert"`."""

from __future__ import annotations

from kerasgen.exporters.tflite.exporter import TFLiteExporter

__all__ = ["TFLiteExporter"]
