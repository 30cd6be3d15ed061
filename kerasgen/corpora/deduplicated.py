"""Drops documents of another corpus that are nearly the same as one before.

Source: Broder 1997 for MinHash, and Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3 for the
search by bands; both by the package `datasketch`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from kerasgen import bounds
from kerasgen.bounds import Bounds, NonNegativeInt, PositiveInt, PositiveShare
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import ArgumentError, CorpusArgumentError, MissingDependencyError

Permutations: TypeAlias = Annotated[int, Bounds(minimum=16)]
"""Hash functions of MinHash."""
_BANDS = 0.9  # nearer to 1 there would be one band alone; candidates are compared anyway
NEAR = "near duplicate"
"""The reason that such a document is counted under."""


@dataclass(frozen=True)
class Deduplicated(CorpusSource):
    """Another corpus without its near duplicates: of several alike documents the first is kept.

    Two documents are alike if the Jaccard similarity of their shingles (runs of characters) is at least `threshold`:
    the number of shingles in both, divided by that in either. The similarity is estimated by MinHash with a standard
    error of about `0.5 / permutations ** 0.5`, and candidates are found by bands, so a pair near the threshold may be
    missed. Letters' case, width and blanks don't count. Each kept document takes about `10 * permutations` bytes of
    memory while the corpus is read. It needs `pip install 'kerasgen[dedup]'`.

    Args:
        of: the corpus: a spec string, a `CorpusSource`, or an iterable of texts.
        threshold: from which similarity on a document is dropped, above 0 and at most 1.
        shingle: characters of a shingle; a text that is shorter is one shingle.
        permutations: hash functions of an estimate.
        seed: of the hash functions.

    Raises:
        CorpusArgumentError: a setting is wrong.
    """

    of: Any
    threshold: PositiveShare = 0.8
    shingle: PositiveInt = 5
    permutations: Permutations = 128
    seed: NonNegativeInt = 1
    _corpus: CorpusSource = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        def fault(name: str, value: Any, wanted: str) -> CorpusArgumentError:
            return CorpusArgumentError(f"{name} must be {wanted}. Received: {value!r:.60}.")

        bounds.check(self, fault)
        object.__setattr__(self, "_corpus", _resolved(self.of))
        if not isinstance(self.of, str):
            object.__setattr__(self, "of", self._corpus)

    def check(self) -> None:
        """Look for the package, and check the corpus."""
        _datasketch()
        self._corpus.check()

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents that are like none before.

        Args:
            tally: filled while the documents are drawn, if given; what is dropped here counts as "near duplicate".

        Raises:
            CorpusFormatError: as the corpus.
            CorpusUnavailableError: as the corpus.
            MissingDependencyError: `datasketch` is not installed.
        """
        datasketch = _datasketch()
        tally = CorpusTally() if tally is None else tally
        index = datasketch.MinHashLSH(threshold=min(self.threshold, _BANDS), num_perm=self.permutations)
        held: list[Any] = []
        for document in self._corpus.documents(tally):
            mark = self._mark(datasketch, document.text)
            if any(held[place].jaccard(mark) >= self.threshold for place in index.query(mark)):
                tally.reject(document, NEAR)
                continue
            index.insert(len(held), mark)
            held.append(datasketch.LeanMinHash(mark))
            yield document

    def _mark(self, datasketch: Any, text: str) -> Any:
        folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
        count = max(len(folded) - self.shingle + 1, 1)
        mark = datasketch.MinHash(num_perm=self.permutations, seed=self.seed)
        mark.update_batch(
            sorted({folded[at : at + self.shingle].encode("utf-8", "surrogatepass") for at in range(count)})
        )
        return mark


def _resolved(of: Any) -> CorpusSource:
    from kerasgen.corpora import resolving

    try:
        return resolving.resolve(of)
    except ArgumentError as cause:
        raise CorpusArgumentError(f"of must be a corpus. Received: {of!r:.80}. {cause}") from cause


def _datasketch() -> Any:
    try:
        import datasketch
    except ImportError as cause:
        raise MissingDependencyError(
            "Near duplicates are found by the package `datasketch`, which can't be imported. Install it: "
            "pip install 'kerasgen[dedup]'.",
            package="datasketch",
            extra="dedup",
        ) from cause
    return datasketch
