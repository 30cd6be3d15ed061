"""Base class of corpora of files: it reads the files of a path in order, and drops or raises bad records."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.paths import File
from kerasgen.corpora.streams import OnError, verify
from kerasgen.errors import CorpusFormatError


@dataclass(frozen=True)
class Dropped:
    """A record that becomes no document: the reason it is counted under, and its error unless it is merely empty."""

    reason: str
    error: CorpusFormatError | None = None


class FileCorpus(CorpusSource):
    """Base of the corpora of files: reads the files in order, and drops or raises bad records."""

    path: str | os.PathLike[str]
    on_error: OnError

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents of all files, a file at a time in the order of their names.

        Args:
            tally: filled while the documents are drawn, if given. What is left out of a damaged file counts as one
                "damaged file".

        Raises:
            CorpusFormatError: a file is malformed, and `on_error` is "raise".
            CorpusUnavailableError: there is no such file, or it can't be read.
            MissingDependencyError: a file is compressed with Zstandard and the package for that is missing.
        """
        tally = CorpusTally() if tally is None else tally
        for file in self._files():
            if self.on_error == "raise":
                verify(file.path)
            records = self._records(file)
            while True:
                try:
                    record = next(records, None)
                except CorpusFormatError:  # the file itself is at fault: nothing after this can be read
                    if self.on_error == "raise":
                        raise
                    record = Dropped("damaged file")
                if record is None:
                    break
                if isinstance(record, Document):
                    yield tally.keep(record)
                elif record.error is not None and self.on_error == "raise":
                    raise record.error
                else:
                    tally.drop(record.reason)

    def check(self) -> None:
        """Look for the files, and read none."""
        self._files()

    @abstractmethod
    def _files(self) -> list[File]:
        """The files of this format that the path means, in order."""

    @abstractmethod
    def _records(self, file: File) -> Iterator[Document | Dropped]:
        """Yield a `Document` or `Dropped` for each record; raise CorpusFormatError where the file can't be read on."""
