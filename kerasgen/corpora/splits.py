"""Assigns documents to training or held-out data, by each text alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

from kerasgen import bounds
from kerasgen.bounds import Bounds, Seed
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError

Side: TypeAlias = Literal["train", "held_out"]

HeldOut: TypeAlias = Annotated[float, Bounds(minimum=0, below=1)]
"""The fraction of texts that is held out."""

HELD_OUT = 0.1


def side(document: Document | str, *, held_out: float, salt: int = 0) -> Side:
    """Return the side that a text lands on: the same in every corpus, order, process and machine.

    The text's hash is a point between 0 and 1; what lies below `held_out` is held out. So a duplicate never lands
    on both sides, and a greater `held_out` moves documents from "train" to "held_out" and none the other way.

    Args:
        document: the document, or its text. Its id and metadata don't count.
        held_out: the expected fraction of distinct texts that is held out, from 0 up to but not including 1.
        salt: another salt is another, independent division.

    Raises:
        CorpusArgumentError: `held_out` or `salt` is out of range.

    Source: blake2b, RFC 7693.
    """
    _check(held_out, salt)
    return _side(document if isinstance(document, str) else document.text, held_out, salt)


def point(text: str, salt: int = 0) -> int:
    """Return the text's hash, from 0 up to but not including 2**64.

    Source: blake2b, RFC 7693.
    """
    # surrogatepass: a lone surrogate (JSON can hold one) has a side too.
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt.to_bytes(hashlib.blake2b.SALT_SIZE, "big")
    ).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True)
class Division:
    """Which side each text of a corpus lands on, its near-duplicates with it.

    Args:
        held_out: the expected fraction of the texts that is held out, as for `side`.
        groups: the point of each text that has near-duplicates, and the point that stands for all of them; see
            `kerasgen.corpora.near_duplicates`. Any other text stands for itself.

    Raises:
        CorpusArgumentError: `held_out` is out of range.
    """

    held_out: float
    groups: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.held_out, 0)

    def side(self, text: str) -> Side:
        """Return the side that a text lands on."""
        own = point(text)
        return "held_out" if self.groups.get(own, own) < self.held_out * 2**64 else "train"

    @cached_property
    def key(self) -> Any:
        """A JSON value that identifies the division."""
        if not self.groups:
            return self.held_out
        digest = hashlib.sha256(repr(sorted(self.groups.items())).encode()).hexdigest()
        return [self.held_out, digest]


def division(held_out: float | Division) -> Division:
    """Return the division of texts without near-duplicates for a fraction, or the division itself."""
    return held_out if isinstance(held_out, Division) else Division(held_out)


def train_documents(
    source: CorpusSource, *, held_out: float = HELD_OUT, salt: int = 0, tally: CorpusTally | None = None
) -> Iterator[Document]:
    """Return an iterator over the source's documents on the side "train", lazily and in the source's order.

    Args:
        source: the corpus.
        held_out: as for `side`.
        salt: as for `side`.
        tally: filled while the documents are drawn; those of the other side count as dropped, with the reason
            "held out".

    Raises:
        CorpusArgumentError: `held_out` or `salt` is out of range; raised before anything is read.
    """
    return _one_side(source, "train", held_out, salt, tally, other="held out")


def held_out_documents(
    source: CorpusSource, *, held_out: float = HELD_OUT, salt: int = 0, tally: CorpusTally | None = None
) -> Iterator[Document]:
    """Return an iterator over the source's documents on the side "held_out", lazily and in the source's order.

    Args:
        source: the corpus.
        held_out: as for `side`.
        salt: as for `side`.
        tally: filled while the documents are drawn; those of the other side count as dropped, with the reason
            "for training".

    Raises:
        CorpusArgumentError: `held_out` or `salt` is out of range; raised before anything is read.
    """
    return _one_side(source, "held_out", held_out, salt, tally, other="for training")


def _one_side(
    source: CorpusSource, wanted: Side, held_out: float, salt: int, tally: CorpusTally | None, *, other: str
) -> Iterator[Document]:
    # Not a generator itself: a wrong argument is an error at the call, not at the first document.
    _check(held_out, salt)
    return _filter(source, wanted, held_out, salt, CorpusTally() if tally is None else tally, other)


def _filter(
    source: CorpusSource, wanted: Side, held_out: float, salt: int, tally: CorpusTally, other: str
) -> Iterator[Document]:
    for document in source.documents(tally):
        if _side(document.text, held_out, salt) == wanted:
            yield document
        else:
            # The source counted it as kept; on this side it is not.
            tally.kept -= 1
            tally.characters -= len(document.text)
            tally.dropped[other] += 1


def _side(text: str, held_out: float, salt: int) -> Side:
    return "held_out" if point(text, salt) < held_out * 2**64 else "train"


def _check(held_out: float, salt: int) -> None:
    if not bounds.accepts(held_out, HeldOut):
        raise CorpusArgumentError(
            "held_out is the fraction of texts to hold out, from 0 up to but not including 1. "
            f"Received: {held_out!r}. Write 0.1 for a tenth."
        )
    if not bounds.accepts(salt, Seed):
        raise CorpusArgumentError(f"salt must be a whole number from 0 up to 2**64 - 1. Received: {salt!r}.")
