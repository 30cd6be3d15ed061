"""An artefact's path becomes its runtime, which is imported when it is asked for."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.runtime import metadata
from kerasgen.runtime.base import Runtime

# Which module opens what an exporter wrote. Its `open_artefact(path, found, **settings)` returns a `Runtime`.
_HOMES = {"tflite": "litert", "saved_model": "saved_model", "litertlm": "litertlm"}


def load_artefact(path: str | os.PathLike[str], **settings: Any) -> Runtime:
    """Return the runtime of an artefact that kerasgen exported.

    It needs the format's own runtime, `tokenizers` and NumPy; neither Keras nor, except for a SavedModel, TensorFlow
    is imported.

    Args:
        path: what `Pipeline.export` wrote; the files beside it belong to it.
        **settings: of the runtime, such as `threads=2`.

    Raises:
        ModelFormatError: it is no artefact, is damaged, or parts of several exports are mixed.
        MissingDependencyError: the format's runtime is not installed.
    """
    place = Path(path)
    found = metadata.read(place)
    home = _HOMES.get(found["exporter"])
    if home is None:
        raise ModelFormatError(
            f"{place} was written by the exporter {found['exporter']!r}, whose files another program runs. kerasgen "
            f"runs: {', '.join(sorted(_HOMES))}."
        )
    runtime: Runtime = import_module(f"kerasgen.runtime.{home}").open_artefact(place, found, **settings)
    return runtime
