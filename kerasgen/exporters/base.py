"""The exporter contract: a model becomes an artefact that is proved against it before it is handed over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel


@dataclass(frozen=True)
class Artefact:
    """What an export wrote.

    Args:
        path: the file or directory.
        exporter: the name of the exporter that wrote it.
        report: files, sizes in bytes and parity figures, as JSON could hold it.
    """

    path: Path
    exporter: str
    report: Mapping[str, Any] = field(default_factory=dict)


class Exporter(ABC):
    """Writes an artefact. Subclasses are frozen dataclasses whose construction imports no Keras."""

    @abstractmethod
    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the model, load what was written, compare, and return the artefact.

        Args:
            model: what to write. It is not changed.
            path: where.
            overwrite: replace what this exporter wrote there before.

        Raises:
            ExportArgumentError: the path is in the way, or the model is of a kind this exporter can't write.
            ExportError: it could not be written, or did not prove equal; no file is left.
        """
