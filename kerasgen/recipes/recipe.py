"""The value of a recipe that was read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Export:
    """One artefact that a recipe asks for.

    Args:
        path: where it is written.
        exporter: what writes it.
    """

    path: Path
    exporter: Any


@dataclass(frozen=True)
class Recipe:
    """What a recipe asks for, checked.

    Args:
        pipeline: the pipeline.
        output: where the tuned pipeline is saved, or None.
        fit: arguments of `fit`.
        evaluate: arguments of `evaluate`; None if nothing is evaluated.
        samples: what is written after tuning: `prompts`, `path` and settings of `generate`; None for nothing.
        exports: the artefacts.
        content: the recipe as plain tables.
    """

    pipeline: Any
    output: str | None
    fit: Mapping[str, Any]
    evaluate: Mapping[str, Any] | None
    samples: Mapping[str, Any] | None
    exports: tuple[Export, ...]
    content: Mapping[str, Any]
