"""Documents to sides: what is trained on and what is held out, decided by each text alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError

Side: TypeAlias = Literal["train", "held_out"]

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
    # surrogatepass: a lone surrogate (JSON can hold one) has a side too.
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt.to_bytes(hashlib.blake2b.SALT_SIZE, "big")
    ).digest()
    return "held_out" if int.from_bytes(digest, "big") < held_out * 2**64 else "train"


def _check(held_out: float, salt: int) -> None:
    if isinstance(held_out, bool) or not isinstance(held_out, (int, float)) or not 0 <= held_out < 1:
        raise CorpusArgumentError(
            "held_out is the fraction of texts to hold out, from 0 up to but not including 1. "
            f"Received: {held_out!r}. Write 0.1 for a tenth."
        )
    if isinstance(salt, bool) or not isinstance(salt, int) or not 0 <= salt < 2**64:
        raise CorpusArgumentError(f"salt must be a whole number from 0 up to 2**64 - 1. Received: {salt!r}.")
