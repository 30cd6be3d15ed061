"""Turn rows of a table into documents, by the columns that a corpus's settings name."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kerasgen.corpora import conversations, prompted, rows
from kerasgen.corpora.base import Document
from kerasgen.corpora.streams import check_name
from kerasgen.errors import CorpusArgumentError

_STANDARD: Final = ("prompt", "response", "chosen", "rejected", "messages")


class TableRowError(ValueError):
    """A row that can't become a document; the message says why.

    Args:
        reason: to count it under.
        what: to say after which row it is.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason, self.what = reason, what


@dataclass(frozen=True)
class Columns:
    """The columns that a corpus is made of; the arguments are those of `kerasgen.Jsonl`.

    Raises:
        CorpusArgumentError: two don't go together, or one is no name.
    """

    field: str = "text"
    id_field: str | None = None
    prompt: str | None = None
    response: str | None = None
    separator: str = "\n"
    chosen: str | None = None
    rejected: str | None = None
    messages: str | None = None

    def __post_init__(self) -> None:
        check_name(self.field, "field")
        if self.id_field is not None:
            check_name(self.id_field, "id_field")
        prompted.fields_of(self)

    @classmethod
    def of(cls, corpus: Any) -> Columns:
        """Return the columns that a corpus's settings of the same names say."""
        return cls(**{field.name: getattr(corpus, field.name) for field in dataclasses.fields(cls)})

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that must be there."""
        given = [value for name in _STANDARD if (value := getattr(self, name)) is not None]
        identified = () if self.id_field is None else (self.id_field,)
        return (*(given or [self.field]), *identified)

    def missing(self, columns: Iterable[str]) -> str | None:
        """Return what is to be said of columns among which one is missing or comes twice, or None.

        Args:
            columns: those that a table has.
        """
        there = list(columns)
        lacking = next((name for name in self.names if name not in there), None)
        if lacking is None:
            twice = next((name for name in self.names if there.count(name) > 1), None)
            return None if twice is None else f"there are several columns {twice!r}"
        return f"there is no column {lacking!r}; there are: {', '.join(map(repr, there)) or 'none'}"

    def document(self, row: Mapping[str, Any], *, id: str) -> Document | str:  # noqa: A002 - its name
        """Return the document of a row, or why it is dropped. Its other columns become the document's metadata.

        Args:
            row: by column; a null where a text should be is an empty one.
            id: the document's, unless a column holds it.

        Raises:
            TableRowError: a column holds something else than it should.
        """
        others = {name: plain(value) for name, value in row.items() if name not in self.names}
        if self.id_field is not None:
            own = row[self.id_field]
            if isinstance(own, bool) or not isinstance(own, (str, int)):
                raise TableRowError(
                    f"column {self.id_field!r} not an id", f"the column {self.id_field!r} is {own!r:.60}"
                )
            id = str(own)  # noqa: A001
        given = {name: row[value] for name in _STANDARD if (value := getattr(self, name)) is not None}
        made = {name: _said(value) for name, value in (given or {"text": row[self.field]}).items()}
        if isinstance(made.get("text"), list) and all(isinstance(part, str) for part in made["text"]):
            made["text"] = "\n".join(made["text"])
        texts = all(isinstance(value, str) for value in made.values())
        try:
            if "response" in made and texts:
                # Names that no column has, so that none is taken for another.
                fields = prompted.Fields("prompt", "response", self.separator)
                return _with(fields.document(made, id=id), others) if made["response"].strip() else "empty response"
            if "rejected" in made and texts and self.separator != "\n":
                fields = prompted.Fields("prompt" if "prompt" in made else None, "chosen", self.separator, "rejected")
                wrong = fields.wrong_pair(made)
                if wrong is not None:
                    raise TableRowError(wrong, f"it holds no pair: {wrong}")
                return _with(fields.document(made, id=id), others)
            document = rows.document(made, id=id)
        except rows.RowError as fault:
            cause = fault.__cause__
            reason = cause.reason if isinstance(cause, conversations.ConversationError) else "not what it should hold"
            raise TableRowError(reason, f"it {fault}") from fault
        return document if isinstance(document, str) else _with(document, others)


def _with(document: Document, metadata: Mapping[str, Any]) -> Document:
    return dataclasses.replace(document, metadata={**document.metadata, **metadata})


def _said(value: Any) -> Any:
    """Return what a column says: a null text is an empty one, bytes of UTF-8 are text, a message's null keys none."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return [{key: held for key, held in each.items() if held is not None} for each in value]
    return value


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: a date as its ISO form, bytes by their number, what is unknown as text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value)


def check_text(value: Any, argument: str) -> None:
    """Check that a setting is text that is not empty.

    Raises:
        CorpusArgumentError: it isn't.
    """
    if not isinstance(value, str) or not value:
        raise CorpusArgumentError(f"{argument} must be text that is not empty. Received: {value!r:.80}.")
