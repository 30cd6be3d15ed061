"""`web`: a folder that a static server shows, with the model and a page that generates in the browser."""

from __future__ import annotations

from kerasgen.exporters.web.exporter import WebExporter

__all__ = ["WebExporter"]
