"""`gguf`: a file that llama.cpp runs: exporter, file, proof, runtime."""

from __future__ import annotations

from kerasgen.exporters.gguf.exporter import GgufExporter

__all__ = ["GgufExporter"]
