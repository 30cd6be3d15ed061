"""Opens a folder of the exporter `web`: the model in it, on LiteRT or LiteRT-LM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kerasgen.exporters.web.exporter import MODELS
from kerasgen.runtime import metadata
from kerasgen.runtime.base import Runtime


def open_artefact(path: Path, description: dict[str, Any], **settings: Any) -> Runtime:
    """Return the runtime of the file in the folder; its settings are those of such an artefact."""
    metadata.check_sizes(path, description)
    engine = description.get("engine", "litert")  # the first pages named none
    inner = path / MODELS[engine]
    if engine == "litertlm":
        from kerasgen.exporters.litertlm.runtime import open_artefact as open_litert_lm

        return open_litert_lm(inner, metadata.read(inner), **settings)
    from kerasgen.exporters.tflite.runtime import open_artefact as open_tflite

    return open_tflite(inner, metadata.read(inner), **settings)
