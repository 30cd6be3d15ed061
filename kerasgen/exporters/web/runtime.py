"""Opens a folder of the exporter `web`: the model in it, on LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kerasgen.exporters.web.exporter import MODEL
from kerasgen.runtime import metadata
from kerasgen.runtime.base import Runtime


def open_artefact(path: Path, description: dict[str, Any], **settings: Any) -> Runtime:
    """Return the runtime of the TFLite file in the folder; its settings are those of a TFLite artefact."""
    from kerasgen.exporters.tflite.runtime import open_artefact as open_tflite

    metadata.check_sizes(path, description)
    inner = path / MODEL
    return open_tflite(inner, metadata.read(inner), **settings)
