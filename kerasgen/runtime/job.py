"""Reads the job of a worker process and writes its answer: two files of JSON that its command line names."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen import devices

# Packages that are large, or that an artefact should do without: a proof tells which of them its process loaded.
WATCHED = ("keras", "keras_hub", "tensorflow", "tensorflow_text", "jax", "torch")


def read() -> dict[str, Any]:
    """Return the job."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return job


def answer(content: Mapping[str, Any]) -> None:
    """Write the answer, with the packages that this process loaded and the most memory that it took."""
    modules = sorted(name for name in WATCHED if name in sys.modules)
    whole = {**content, "modules": modules, "peak_bytes": devices.peak_memory_bytes()}
    Path(sys.argv[2]).write_text(json.dumps(whole), encoding="utf-8")
