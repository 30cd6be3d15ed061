"""Makes a corpus of any iterable of texts, which yields the same documents each time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from kerasgen.corpora import rows, tensor_datasets
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError, CorpusFormatError


@dataclass(frozen=True)
class Texts(CorpusSource):
    """Any iterable of strings, of rows, or of documents.

    A row is a dict with a `text`, with a `prompt` and its `response` (or TRL's `completion`, which follows at once),
    with a `prompt`, a `chosen` and a `rejected` answer, or with `messages`, as `Jsonl` reads them; its other fields
    become the document's metadata. A prompt and its answers are texts or lists of messages.

    A list is copied, a set is put in order, and a `datasets.Dataset` whose columns are those of a row is asked for its
    rows. An iterator (a generator, an open file) is drawn once, when the first documents are asked for, and what it
    gave is kept in memory, so that the next pass is the same. Any other iterable is asked for a new iterator at each
    pass and must give the same items each time. A `tf.data.Dataset` of strings or of batches of strings is drawn once
    too: one that is shuffled gives another order at each pass.

    A text of nothing but white space is dropped and counted as "empty". The id of a text or row is its position, and a
    document keeps its own.

    Args:
        texts: the strings, dicts or documents.

    Raises:
        CorpusArgumentError: `texts` is one string, bytes, a mapping or a table, can't be iterated over, or is a list of
            other things than strings or a dataset of such.
    """

    texts: Iterable[Any]
    _kept: _Kept | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        texts = self.texts
        if isinstance(texts, str):
            raise CorpusArgumentError(
                f"texts must be an iterable of strings, not one string. Received: {_short(texts)}. "
                "Put it in a list: Texts([text])."
            )
        if isinstance(texts, (bytes, bytearray, memoryview)):
            raise CorpusArgumentError("texts must be an iterable of strings. Received bytes; decode them first.")
        if isinstance(texts, Mapping):
            raise CorpusArgumentError(
                "texts must be an iterable of strings. Received a mapping, which would give its keys; "
                "pass mapping.values()."
            )
        if isinstance(texts, CorpusSource):
            raise CorpusArgumentError(f"A {type(texts).__name__} is a corpus already. Pass it as it is.")
        if tensor_datasets.is_dataset(texts):
            tensor_datasets.check(texts)
            object.__setattr__(self, "_kept", _Kept(tensor_datasets.texts(texts)))
            return
        tensor_datasets.check_is_none_of_one(texts)
        columns = _columns(texts)
        if columns is not None:
            column = "text" if "text" in columns or not columns else columns[0]
            raise CorpusArgumentError(
                f"texts must be an iterable of strings. Received a table ({type(texts).__name__}) with the columns "
                f"{', '.join(map(repr, columns))}. Pass the one that holds the texts, such as table[{column!r}]."
            )
        if not isinstance(texts, Iterable):
            raise CorpusArgumentError(
                f"texts must be an iterable of strings. Received: {_short(texts)} ({type(texts).__name__})."
            )
        if isinstance(texts, (list, tuple)):
            for position, text in enumerate(texts):
                if not _is_item(text):
                    raise CorpusArgumentError(_no_string(position, text))
            object.__setattr__(self, "texts", tuple(texts))
        elif isinstance(texts, Set):
            # The order of a set of strings differs from process to process; a resumed run needs the same one.
            # `str` as the key: what is not a string is reported when it is drawn, not by a failing comparison here.
            object.__setattr__(self, "texts", tuple(sorted(texts, key=str)))
        elif isinstance(texts, Iterator):
            object.__setattr__(self, "_kept", _Kept(texts))

    def __repr__(self) -> str:
        if isinstance(self.texts, tuple):
            return f"Texts(<{len(self.texts)} text{'s' if len(self.texts) != 1 else ''}>)"
        return f"Texts(<{type(self.texts).__name__}>)"

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the texts that are not empty, in order.

        Args:
            tally: filled while the documents are drawn, if given.

        Raises:
            CorpusFormatError: an item is none of the three, or a row or its conversation is wrong; says its position.
        """
        tally = CorpusTally() if tally is None else tally
        for position, text in enumerate(self.texts if self._kept is None else self._kept):
            if not _is_item(text):
                raise CorpusFormatError(_no_string(position, text))
            made = _document(text, position)
            if isinstance(made, Document):
                yield tally.keep(made)
            else:
                tally.drop(made)


def _is_item(item: object) -> bool:
    """Return whether an item becomes a document; the fields of a row are known by now, and what they hold is not."""
    return isinstance(item, (str, Document)) or (isinstance(item, Mapping) and rows.is_known(item))


def _document(item: Any, position: int) -> Document | str:
    """Return the document of an item, or why it is dropped."""
    if isinstance(item, Mapping):
        try:
            return rows.document(item, id=str(position))
        except rows.RowError as fault:
            raise CorpusFormatError(f"Item {position} of the rows {fault}.", line=None) from fault
    made = item if isinstance(item, Document) else Document(item, str(position))
    return made if made.text.strip() else "empty"


def is_endless(corpus: object) -> bool:
    """Return whether a corpus is a `tf.data.Dataset` that says of itself that it has no end."""
    dataset = corpus.texts if isinstance(corpus, Texts) else corpus
    return tensor_datasets.is_dataset(dataset) and tensor_datasets.is_infinite(dataset)


def _columns(value: object) -> list[str] | None:
    """Return a table's column names, over which iterating may run by mistake; None for anything else."""
    if type(value).__module__.partition(".")[0] == "datasets":  # Hugging Face's give their rows, as dicts
        names = getattr(value, "column_names", None)
        if isinstance(names, list) and rows.is_known(dict.fromkeys(names)):
            return None
    for attribute in ("column_names", "columns"):
        names = getattr(value, attribute, None)
        if names is not None and not callable(names) and not isinstance(names, str) and isinstance(names, Iterable):
            return [str(name) for name in names]
    return None


def _no_string(position: int, item: object) -> str:
    if isinstance(item, Mapping):
        key = next((key for key, part in item.items() if isinstance(part, str)), "text")
        advice = (
            f"Pick the texts: (row[{key!r}] for row in rows). A row is taken as it is with the fields {rows.FORMS}."
        )
    elif isinstance(item, (tuple, list)):
        at = next((at for at, part in enumerate(item) if isinstance(part, str)), 0)
        advice = f"Pick the texts: (row[{at}] for row in rows)."
    elif isinstance(item, bytes):
        advice = "Decode them first: (text.decode('utf-8') for text in texts)."
    else:
        advice = "Pass strings only."
    return f"Item {position} of the texts is not a string. Received: {_short(item)} ({type(item).__name__}). {advice}"


class _Kept:
    """Keeps what an iterator has given, so that several readers at different places can share it.

    A failure of the iterator is kept too: an iterator that failed looks finished when it is asked again, and the
    second pass would be silently shorter than the first.
    """

    def __init__(self, source: Iterator[Any]) -> None:
        self._source: Iterator[Any] | None = source
        self._items: list[Any] = []
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while position < len(self._items) or self._draw(position):
            yield self._items[position]
            position += 1

    def _draw(self, position: int) -> bool:
        """Draw until `position` is there; False if the iterator ended before."""
        with self._lock:
            if position < len(self._items):
                return True
            if self._failure is not None:
                raise self._failure
            if self._source is None:
                return False
            try:
                self._items.append(next(self._source))
            except StopIteration:
                self._source = None
                return False
            except Exception as failure:
                self._failure = failure
                raise
            return True


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
