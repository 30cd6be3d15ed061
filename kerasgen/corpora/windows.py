"""Reads a corpus in windows of bounded size, and checks that a corpus can be read anew without being kept in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kerasgen.corpora import splits, tensor_datasets
from kerasgen.corpora.base import CorpusSource, Document
from kerasgen.corpora.mix import Mix
from kerasgen.corpora.texts import Texts
from kerasgen.errors import CorpusArgumentError

WINDOW_CHARACTERS: Final = 4_000_000
"""Of the texts of a window together, about: a million tokens of English, some 60 MB with all that belongs to them."""


@dataclass(frozen=True)
class Window:
    """Documents that stand one after another in a corpus, on their sides.

    Args:
        train: those to train on.
        held_out: those that are never trained on.
    """

    train: list[Document]
    held_out: list[Document]

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)


def draw(
    documents: Iterator[Document],
    characters: int,
    division: splits.Division,
    see: Callable[[Document], None] | None = None,
) -> Window:
    """Return the next window of documents; an empty one where there are no more.

    It has so many characters, or more where its last document, or its first one to train on, is longer.

    Args:
        documents: drawn as far as the window goes.
        characters: of its texts together.
        division: says which side each text lands on.
        see: called with each document in order.
    """
    window = Window([], [])
    held = 0
    for document in documents:
        if see is not None:
            see(document)
        (window.train if division.side(document.text) == "train" else window.held_out).append(document)
        held += len(document.text) + len(document.rejected_text)
        if held >= characters and window.train:
            break
    return window


@dataclass(frozen=True)
class Restarted(Iterable[Any]):
    """An iterable that asks a function for a new iterator at each pass.

    Args:
        begin: the function, without arguments.
    """

    begin: Callable[[], Iterable[Any]]

    def __iter__(self) -> Iterator[Any]:
        items = self.begin()
        if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
            raise CorpusArgumentError(
                f"A function as the corpus must return an iterable of texts. Received: {items!r:.80} "
                f"({type(items).__name__})."
            )
        return iter(items)


def size(streaming: Any) -> int:
    """Return the characters of a window for the setting `streaming`; 0 for none.

    Raises:
        CorpusArgumentError: it is neither True nor False nor a positive whole number.
    """
    if isinstance(streaming, bool):
        return WINDOW_CHARACTERS if streaming else 0
    if not isinstance(streaming, int) or streaming < 1:
        raise CorpusArgumentError(
            "streaming must be True, False, or how many characters of the corpus are held in memory at once. "
            f"Received: {streaming!r}."
        )
    return streaming


def of_source(value: Any) -> Any:
    """Return a corpus as it is read when it is streamed: a function and a `tf.data.Dataset` are asked anew each pass.

    Args:
        value: what a person passes as the corpus.
    """
    if callable(value) and not isinstance(value, (type, CorpusSource)) and not isinstance(value, Iterable):
        return Texts(Restarted(value))
    dataset = value.texts if isinstance(value, Texts) else value
    if tensor_datasets.is_dataset(dataset):
        tensor_datasets.check(dataset)
        return Texts(Restarted(lambda: tensor_datasets.texts(dataset)))
    return value


def require_restartable(source: CorpusSource) -> None:
    """Raise a `CorpusArgumentError` for an iterator, whose texts are kept in memory, or a mixture that has one.

    Args:
        source: the corpus.
    """
    if isinstance(source, Texts) and source._kept is not None:
        raise CorpusArgumentError(
            "An iterator can be drawn once, so its texts would all be kept in memory. To stream it, pass a function "
            "that begins it anew (corpus=read_texts, without the brackets), or an object with an `__iter__`."
        )
    if isinstance(source, Mix):
        for _, corpus in source.corpora:
            require_restartable(corpus)
    elif dataclasses.is_dataclass(source):
        for field in dataclasses.fields(source):
            held = getattr(source, field.name)
            if isinstance(held, CorpusSource):
                require_restartable(held)
