"""A corpus of a text file whose documents stand between lines of three hyphens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError, CorpusUnavailableError


@dataclass(frozen=True)
class PlaceholderCorpus(CorpusSource):
    """The texts of a file, which lines of three hyphens part.

    Args:
        path: the file, in UTF-8.
    """

    contract_version: ClassVar[int] = 1

    path: str | os.PathLike[str]

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise CorpusArgumentError(f"path must be that of a file. Received: path={self.path!r}.")
        object.__setattr__(self, "path", os.fspath(self.path))

    def check(self) -> None:
        """Say that the file is missing before a model is loaded."""
        if not Path(self.path).is_file():
            raise CorpusUnavailableError(f"There is no file {self.path}.", path=Path(self.path))

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the texts in their order; an empty one is counted as dropped."""
        tally = CorpusTally() if tally is None else tally
        for number, text in enumerate(self._texts(), start=1):
            if text:
                yield tally.keep(Document(text=text, id=f"{Path(self.path).name}:{number}"))
            else:
                tally.drop("empty")

    def _texts(self) -> Iterator[str]:
        lines: list[str] = []
        self.check()
        with Path(self.path).open(encoding="utf-8") as file:
            for line in chain(file, ["---"]):
                if line.strip() != "---":
                    lines.append(line)
                    continue
                yield "".join(lines).strip()
                lines.clear()
