"""A corpus as a pipeline reads it: so many documents at most, and each on the side that its hash gives it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from kerasgen.corpora import splits
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document


@dataclass(frozen=True)
class DividedCorpus:
    """The training and the held-out texts of a corpus; nothing is kept, every reading starts anew.

    Args:
        source: the corpus.
        held_out: the fraction of the texts that is never trained on, by a hash of each text.
        max_documents: read at most so many documents, or None for all.
    """

    source: CorpusSource
    held_out: float
    max_documents: int | None = None

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents of both sides; what is left out is counted in the tally."""
        return islice(self.source.documents(CorpusTally() if tally is None else tally), self.max_documents)

    def texts(self, side: splits.Side) -> Iterator[str]:
        """Yield the texts of one side, `"train"` or `"held_out"`."""
        for document in self.documents():
            if splits.side(document, held_out=self.held_out) == side:
                yield document.text
