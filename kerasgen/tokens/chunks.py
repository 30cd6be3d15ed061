"""Divides any number of texts into portions, so that every core is busy and memory stays flat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

TEXTS_AT_ONCE: Final = 1024
"""Texts handed to a tokenizer at once: its answers hold far more than ids, and are dropped between."""


def portions(texts: Iterable[T]) -> Iterator[list[T]]:
    """Yield the texts, or the documents, `TEXTS_AT_ONCE` at a time; the last portion holds what is left."""
    waiting = iter(texts)
    while portion := list(islice(waiting, TEXTS_AT_ONCE)):
        yield portion
