"""Divides a corpus into training and held-out documents; near-duplicates stay on one side."""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from kerasgen import cache
from kerasgen.corpora import document_cache, near_duplicates, splits, windows
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document

MOST_CHARACTERS: Final = 20_000_000
"""A corpus of at most so many characters is kept in memory once it was read; they take 20 to 80 MB.

Each document counts as `_OF_A_DOCUMENT` characters more.
"""

FOLDER: Final = "splits"
SAMPLES: Final = ("first", "random")
_OF_A_DOCUMENT: Final = 250  # it takes 400 bytes beside its text, with an id
_NOT_SAMPLED = "not in the sample"

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class DividedCorpus:
    """The training and the held-out texts of a corpus.

    Near-duplicates are looked for when a side is first asked for, which reads the corpus once. A corpus that is small
    enough stays in memory from then on, so that it is the same each time.

    Args:
        source: the corpus.
        held_out: the fraction of the texts that is never trained on, by a hash of each text or of its near-duplicates.
        max_documents: read at most so many documents, or None for all.
        sample: which ones those are: the `"first"`, or a `"random"` sample that doesn't depend on their order.
        seed: the seed of the random sample.
        cache: the directory in which what is near what is kept for later runs, or None to keep nothing.
        window_characters: of a corpus that is streamed, of each window; 0 for one that is not. What is said here of its
            documents is of the first window alone, and near-duplicates are not looked for.
    """

    source: CorpusSource
    held_out: float
    max_documents: int | None = None
    sample: Literal["first", "random"] = "first"
    seed: int = 0
    cache: Path | None = None
    window_characters: int = 0
    _read: tuple[list[Document], CorpusTally] | None = field(default=None, init=False, repr=False)

    def is_same(self, other: DividedCorpus) -> bool:
        """Return whether another one has the same source and settings."""
        return self.source is other.source and self._settings() == other._settings()

    def _settings(self) -> tuple[object, ...]:
        return self.held_out, self.max_documents, self.sample, self.seed, self.cache, self.window_characters

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents of both sides; what is left out is counted in the tally."""
        tally = CorpusTally() if tally is None else tally
        if self.window_characters:
            return self._of_first_window(tally)
        if self._read is None:
            self._read = self._cached()
        if self._read is None:
            return self._drawn(tally)
        documents, counts = self._read
        return _replayed(documents, counts, tally)

    def everything(self, tally: CorpusTally) -> Iterator[Document]:
        """Yield the documents of both sides, those of later windows with them; what is left out is counted."""
        return self._drawn(tally)

    def _of_first_window(self, tally: CorpusTally) -> Iterator[Document]:
        documents: list[Document] = []
        windows.draw(self.everything(tally), self.window_characters, self.division, documents.append)
        yield from documents

    def texts(self, side: splits.Side) -> Iterator[str]:
        """Yield the texts of one side, `"train"` or `"held_out"`."""
        return (document.text for document in self.side(side))

    def side(self, side: splits.Side) -> Iterator[Document]:
        """Yield the documents of one side, `"train"` or `"held_out"`."""
        division = self.division
        return (document for document in self.documents() if division.side(document.text) == side)

    @cached_property
    def division(self) -> splits.Division:
        """Which side each text lands on."""
        if self.held_out == 0 or self.window_characters:
            return splits.Division(self.held_out)
        content = self.noted(f"{near_duplicates.VERSION}-near", self._near)
        return splits.Division(
            self.held_out, {own: int(group) for group, members in content["groups"].items() for own in members}
        )

    def noted(self, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what `find` finds in the documents, a JSON object, from the cache if these were read before.

        Args:
            name: of what is found, with the version of the code that finds it.
            find: reads the documents.
        """
        before = None if self.window_characters else self._document_path
        if self.cache is None or before is None:
            return find()
        place = self.cache / FOLDER / f"{before.stem}-{name}.json"
        known = cache.read(place)
        if known is not None and document_cache.is_whole(before):  # else they are read, and written again
            return known
        found = find()
        if self._fingerprint_path() == before:  # they are still what they were
            cache.write(place, found, again="the corpus is read again")
        return found

    def _near(self) -> dict[str, Any]:
        """Return the points of near-duplicates by the point that stands for them."""
        near: near_duplicates.NearDuplicates | None = None
        digest = hashlib.sha256()
        tally = CorpusTally()
        documents: list[Document] = []
        characters = 0
        try:
            for document in self.documents(tally):
                digest.update(splits.point(document.text).to_bytes(8, "big"))
                characters += len(document.text) + _OF_A_DOCUMENT
                if near is not None:
                    near.add(document.text)
                    continue
                documents.append(document)
                if characters > MOST_CHARACTERS:  # compared now, so that the corpus isn't read again for it
                    near = _near_duplicates_of(documents)
                    documents = []
        except BaseException:
            if near is not None:
                near.close()
            raise
        if near is None and self._read is None:
            self._read = documents, tally
            if self._document_path is not None and self._fingerprint_path() == self._document_path:  # read as it was
                document_cache.write(self._document_path, documents, tally)

        def look() -> dict[str, Any]:
            looked = _near_duplicates_of(documents) if near is None else near
            members: dict[str, list[int]] = {}
            for own, group in looked.groups().items():
                members.setdefault(str(group), []).append(own)
            if looked.gave_up:
                _log.warning(
                    "The corpus has too many lines to look for near-duplicates in it, so some may be trained on and "
                    "held out at once."
                )
            return {"groups": members}

        return cache.kept(
            self._path(digest.hexdigest()), look, again="the corpus is searched for near-duplicates again"
        )

    def _cached(self) -> tuple[list[Document], CorpusTally] | None:
        return None if self._document_path is None else document_cache.read(self._document_path)

    @cached_property
    def _document_path(self) -> Path | None:
        """The file of the cache for the documents, if the source has a fingerprint."""
        return self._fingerprint_path()

    def _fingerprint_path(self) -> Path | None:
        fingerprint = None if self.cache is None else self.source.fingerprint()
        if self.cache is None or fingerprint is None:
            return None
        seed = None if self.sample == "first" else self.seed
        return document_cache.path_of(self.cache, [fingerprint, self.max_documents, self.sample, seed])

    def _path(self, digest: str) -> Path | None:
        return None if self.cache is None else self.cache / FOLDER / f"{near_duplicates.VERSION}-{digest}.json"

    def _drawn(self, tally: CorpusTally) -> Iterator[Document]:
        if self.max_documents is None or self.sample == "first":
            yield from islice(self.source.documents(tally), self.max_documents)
            return
        highest, ties = self._bound
        for document in self.source.documents(tally):
            place = _place(document.text, self.seed)
            if place < highest or (place == highest and ties):
                ties -= place == highest
                yield document
            else:
                tally.kept -= 1
                tally.characters -= len(document.text)
                tally.dropped[_NOT_SAMPLED] += 1

    @cached_property
    def _bound(self) -> tuple[int, int]:
        """Return the greatest place of a document in the sample, and how many documents at that place are in it."""
        assert self.max_documents is not None
        places: list[int] = []  # a heap of the smallest places, negated
        for document in self.source.documents():
            place = -_place(document.text, self.seed)
            if len(places) < self.max_documents:
                heapq.heappush(places, place)
            else:
                heapq.heappushpop(places, place)
        return (-places[0], places.count(places[0])) if places else (0, 0)


def _place(text: str, seed: int) -> int:
    """Return the text's place in an order that the seed decides."""
    data = seed.to_bytes(16, "big", signed=False) + text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _near_duplicates_of(documents: list[Document]) -> near_duplicates.NearDuplicates:
    near = near_duplicates.NearDuplicates()
    for document in documents:
        near.add(document.text)
    return near


def _replayed(documents: list[Document], counts: CorpusTally, tally: CorpusTally) -> Iterator[Document]:
    yield from documents
    tally.read += counts.read
    tally.kept += counts.kept
    tally.characters += counts.characters
    tally.dropped.update(counts.dropped)
    tally.changed.update(counts.changed)
