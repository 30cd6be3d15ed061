"""The corpus contract: a source yields documents, lazily, and the same ones each time."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kerasgen.errors import CorpusArgumentError
from kerasgen.keywords import Checked


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Args:
        text: the text itself; not empty.
        id: names the document within its corpus, the same each time.
        metadata: whatever else the source knows (title, author, …), as JSON could hold it.
    """

    text: str
    id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class CorpusTally:
    """What reading a corpus kept and dropped; filled while the documents are drawn.

    Args:
        read: documents found, kept or not.
        kept: documents yielded.
        characters: characters yielded (Unicode code points).
        dropped: how many documents were not yielded, by reason.
        changed: how many documents were yielded in another form than they were found, by reason.
    """

    read: int = 0
    kept: int = 0
    characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def keep(self, document: Document) -> Document:
        """Count a document as read and kept, and return it."""
        self.read += 1
        self.kept += 1
        self.characters += len(document.text)
        return document

    def drop(self, reason: str) -> None:
        """Count a document as read and dropped."""
        self.read += 1
        self.dropped[reason] += 1

    def change(self, reason: str) -> None:
        """Count a change to the document that is being read."""
        self.changed[reason] += 1

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON can hold them."""
        return {
            "read": self.read,
            "kept": self.kept,
            "characters": self.characters,
            "dropped": dict(self.dropped),
            "changed": dict(self.changed),
        }


class CorpusSource(metaclass=Checked):
    """Where texts come from. Subclasses are frozen dataclasses whose construction reads nothing.

    A subclass checks its settings in `__post_init__` (raising `CorpusArgumentError`) and does all input and output
    in `documents`.
    """

    _argument_error = CorpusArgumentError

    def check(self) -> None:
        """Raise unless what the corpus reads is there, before any heavy work; by default, check nothing.

        Raises:
            CorpusUnavailableError: it is not.
        """

    @abstractmethod
    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents, lazily, the same ones in the same order at each call.

        Args:
            tally: filled while the documents are drawn, if given: each document that is read is counted as kept or
                as dropped with its reason.

        Raises:
            CorpusFormatError: a file is malformed; says which, and the byte or line.
            CorpusUnavailableError: the data are not here and can't be fetched; says what to do.
        """

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents, as `documents` does. How many there are, only reading all of them tells."""
        return self.documents()
