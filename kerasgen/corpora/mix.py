"""Mixes several corpora by weights, in an order that a seed decides."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import ArgumentError, CorpusArgumentError
from kerasgen.keywords import meant

UNTIL: Final = ("all", "first")


@dataclass(frozen=True)
class Mix(CorpusSource):
    """Several corpora in one: each document is drawn from a corpus with a probability proportional to its weight.

    Every corpus gives its documents in its own order, each once. The mixture is the same at each pass, and its tally
    counts what all of them read and dropped. A document's id gets the corpus's place in front (`"1:poem 7"`), and its
    metadata that place as `"corpus"`.

    Args:
        of: pairs of a weight and a corpus (a spec string, a `CorpusSource`, or an iterable of texts); or a text, such
            as `"3 * sample | 1 * text:path=notes.txt"`, in which a weight that is left out is 1.
        until: when the mixture ends: with `"all"` of the documents, so that the longest corpus is alone at the end; or
            where the `"first"` corpus has none left, so that the proportions hold throughout; then every corpus must
            have a document.
        seed: of the draws.

    Raises:
        CorpusArgumentError: there are no corpora, a weight is no positive number, or a setting is wrong.
    """

    of: str | Iterable[Any]
    until: Literal["all", "first"] = "all"
    seed: int = 0
    _corpora: tuple[tuple[float, CorpusSource], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pairs = _parsed(self.of) if isinstance(self.of, str) else _pairs(self.of)
        if not pairs:
            raise CorpusArgumentError("of must name corpora with their weights. Received none.")
        for weight, _ in pairs:
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
                raise CorpusArgumentError(f"A weight in of must be a number above 0. Received: {weight!r:.60}.")
        if self.until not in UNTIL:
            raise CorpusArgumentError(
                f"until must be one of {', '.join(UNTIL)}. Received: {self.until!r}.{meant(self.until, UNTIL)}"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise CorpusArgumentError(f"seed must be a whole number. Received: {self.seed!r:.60}.")
        object.__setattr__(self, "_corpora", tuple((weight, _resolved(corpus)) for weight, corpus in pairs))
        if not isinstance(self.of, str):
            object.__setattr__(self, "of", self._corpora)

    @property
    def corpora(self) -> tuple[tuple[float, CorpusSource], ...]:
        """The weights and corpora."""
        return self._corpora

    def check(self) -> None:
        """Check each of the corpora."""
        for _, corpus in self.corpora:
            corpus.check()

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents of all corpora, mixed.

        Args:
            tally: filled while the documents are drawn, if given.

        Raises:
            CorpusArgumentError: the mixture ends with the first corpus that has no document left, and one has none
                at all.
            CorpusFormatError: as a corpus of them.
            CorpusUnavailableError: as a corpus of them.
        """
        tally = CorpusTally() if tally is None else tally
        draws = random.Random(self.seed)
        waiting = {place: corpus.documents(tally) for place, (_, corpus) in enumerate(self.corpora)}
        if self.until == "first":
            waiting = {place: self._with_one(place, documents, tally) for place, documents in waiting.items()}
        while waiting:
            places = list(waiting)
            (place,) = draws.choices(places, [self.corpora[each][0] for each in places])
            document = next(waiting[place], None)
            if document is not None:
                metadata = {**document.metadata, "corpus": place}
                yield dataclasses.replace(document, id=f"{place}:{document.id}", metadata=metadata)
            elif self.until == "first":
                return
            else:
                del waiting[place]

    def _with_one(self, place: int, documents: Iterator[Document], tally: CorpusTally) -> Iterator[Document]:
        """Return a corpus's documents after making sure that there is one."""
        dropped = tally.dropped.total()
        first = next(documents, None)
        if first is None:
            lost = tally.dropped.total() - dropped
            why = f"all {lost:,} that were read were dropped" if lost else "it gives none"
            raise CorpusArgumentError(
                f"until='first' ends the mixture where a corpus has no document left, and "
                f"{self.corpora[place][1]!r:.200} at place {place} has none: {why}. Leave it out, or write until='all'."
            )
        return itertools.chain([first], documents)


def _resolved(corpus: Any) -> CorpusSource:
    from kerasgen.corpora import resolving

    try:
        return resolving.resolve(corpus)
    except ArgumentError as cause:
        raise CorpusArgumentError(f"of must name corpora. Received: {corpus!r:.80}. {cause}") from cause


def _parsed(text: str) -> list[tuple[float, str]]:
    pairs: list[tuple[float, str]] = []
    for part in filter(None, map(str.strip, text.split("|"))):
        first, star, rest = part.partition("*")
        try:
            weight = float(first) if star else 1.0
        except ValueError:  # the star stands in a path
            weight, rest, star = 1.0, "", ""
        pairs.append((weight, rest.strip() if star else part))
    return pairs


def _pairs(given: Any) -> list[tuple[Any, Any]]:
    if not isinstance(given, Iterable):
        raise CorpusArgumentError(f"of must be pairs of a weight and a corpus. Received: {given!r:.80}.")
    pairs = list(given)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise CorpusArgumentError(
                "of must be pairs of a weight and a corpus, such as [(3, 'sample'), (1, texts)]. Received: "
                f"{pair!r:.80}."
            )
    return [tuple(pair) for pair in pairs]
