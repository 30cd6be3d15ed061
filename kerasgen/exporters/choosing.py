"""Which exporter writes a path, by how it ends."""

from __future__ import annotations

from pathlib import Path

from kerasgen.errors import ExportArgumentError

_SUFFIXES = {".tflite": "tflite", ".litertlm": "litertlm", ".gguf": "gguf"}


def by_ending(path: Path) -> str:
    """Return the name of the exporter whose artefacts end like this path, in letters of either case.

    Raises:
        ExportArgumentError: no exporter's do.
    """
    name, suffix = path.name.lower(), path.suffix.lower()
    if name.endswith("saved_model"):
        return "saved_model"
    if suffix and suffix not in _SUFFIXES:
        raise ExportArgumentError(
            f"No exporter is known by the ending {path.suffix!r}; there are {', '.join(_SUFFIXES)}, names that end in "
            f"'saved_model', and names without an ending, which are presets. Received: {str(path)!r}. Rename it, or "
            "say exporter=…."
        )
    return _SUFFIXES.get(suffix, "preset")
