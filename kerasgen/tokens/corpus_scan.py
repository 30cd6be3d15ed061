"""Reads a corpus once for all that is decided by its texts: their digests, a sample, and what was dropped."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kerasgen.corpora import splits
from kerasgen.corpora.base import CorpusTally, Document

VERSION = 1
"""Rises when a survey of the same texts would find something else."""

SAMPLE_CHARACTERS = 200_000
"""Of the sampled texts together, about; a longer text is cut there."""


class TextDigest:
    """Digits that change with any text, and with where one ends and the next begins."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Take in a text, and its parts where it has some."""
        self._add(document.text)
        for part in document.parts:
            self._add(f"\0part {len(part.text)} {part.weight!r} {part.role!r}")
        for part in document.rejected:
            self._add(f"\0rejected {len(part.text)} {part.weight!r} {part.role!r}")
            self._add(part.text)
        if document.conversation is not None:
            self._add(f"\0conversation {document.conversation.to_json()}")
        if document.rejected_conversation is not None:
            self._add(f"\0rejected conversation {document.rejected_conversation.to_json()}")

    def _add(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._sha256.update(len(data).to_bytes(8, "little"))
        self._sha256.update(data)

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits that stand for the texts so far."""
        return self._sha256.hexdigest()


class TextSample:
    """Uniform random sample of the texts that are added, the same one each time."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._kept: list[tuple[float, str]] = []  # a heap: of the numbers drawn the least stay, the greatest is first
        self._characters = 0

    def add(self, text: str) -> None:
        """Show it a text."""
        number = self._random.random()
        if self._characters >= SAMPLE_CHARACTERS and number >= -self._kept[0][0]:
            return
        part = text[:SAMPLE_CHARACTERS]
        heapq.heappush(self._kept, (-number, part))
        self._characters += len(part)
        while self._characters - len(self._kept[0][1]) >= SAMPLE_CHARACTERS:
            self._characters -= len(heapq.heappop(self._kept)[1])

    def texts(self) -> tuple[str, ...]:
        """Return those that stayed."""
        return tuple(text for _, text in self._kept)


@dataclass(frozen=True)
class Surveyed:
    """The result of one reading of a corpus.

    Args:
        digest: the digest of the texts of both sides.
        training_digest: the digest of those on the side "train".
        training_sample: some of those.
        tally: what reading the corpus kept and dropped.
        has_parts: whether a document has parts.
        has_pairs: whether a document has a rejected text.
        has_conversations: whether a document is a conversation.
    """

    digest: str
    training_digest: str
    training_sample: tuple[str, ...]
    tally: CorpusTally
    has_parts: bool = False
    has_pairs: bool = False
    has_conversations: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            **dataclasses.asdict(self),
            "training_sample": list(self.training_sample),
            "tally": self.tally.to_dict(),
        }

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Surveyed:
        """Return what `to_dict` was called on."""
        counts = held["tally"]
        tally = CorpusTally(**{**counts, "dropped": Counter(counts["dropped"]), "changed": Counter(counts["changed"])})
        return cls(**{**held, "training_sample": tuple(held["training_sample"]), "tally": tally})


class Survey:
    """The training texts of a corpus, which is read when something about them is asked for, and then once.

    Args:
        read: yields the documents of both sides and fills the tally, the same ones at each call.
        held_out: the fraction of texts that is held out, or the division that says it of each text.
        shown: puts a progress bar over the reading, or None.
        noted: returns what its argument returns, from an earlier reading of the same documents where there was one.
    """

    def __init__(
        self,
        read: Callable[[CorpusTally], Iterable[Document]],
        *,
        held_out: float | splits.Division,
        shown: Callable[[Iterable[Document]], Iterator[Document]] | None = None,
        noted: Callable[[Callable[[], dict[str, Any]]], dict[str, Any]] | None = None,
    ) -> None:
        self._read = read
        self._division = splits.division(held_out)
        self._shown = shown
        self._noted = noted

    def __call__(self) -> Iterator[str]:
        """Yield the training texts, read anew."""
        for document in self._read(CorpusTally()):
            if self._division.side(document.text) == "train":
                yield document.text
                if document.rejected:
                    yield document.rejected_text

    @cached_property
    def found(self) -> Surveyed:
        """The result of one reading."""
        if self._noted is None:
            return self._read_once()
        return Surveyed.from_dict(self._noted(lambda: self._read_once().to_dict()))

    def _read_once(self) -> Surveyed:
        everything, training, sample, tally = TextDigest(), TextDigest(), TextSample(), CorpusTally()
        documents = self._read(tally)
        has_parts = has_pairs = has_conversations = False
        for document in documents if self._shown is None else self._shown(documents):
            everything.add(document)
            has_parts = has_parts or bool(document.parts)
            has_pairs = has_pairs or bool(document.rejected)
            has_conversations = has_conversations or document.conversation is not None
            if self._division.side(document.text) == "train":
                training.add(document)
                sample.add(document.text)
                if document.rejected:
                    sample.add(document.rejected_text)
        return Surveyed(
            everything.hexdigest(),
            training.hexdigest(),
            sample.texts(),
            tally,
            has_parts,
            has_pairs,
            has_conversations,
        )
