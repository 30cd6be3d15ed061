"""Reads documents from files of comma-separated values, a row at a time."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from kerasgen import limits
from kerasgen.corpora import csv_rows, prompted
from kerasgen.corpora.base import Document
from kerasgen.corpora.conversations import TOOLS
from kerasgen.corpora.file_corpus import Dropped, FileCorpus
from kerasgen.corpora.file_faults import another_kind, checked, conversation, fault, no_field
from kerasgen.corpora.file_kinds import BINARY, is_encoded_text, json_kind, kind_of
from kerasgen.corpora.paths import File, find_files
from kerasgen.corpora.streams import (
    OnError,
    check_encoding,
    check_name,
    check_on_error,
    check_path,
    decode_line,
    extends_ascii,
    head_of,
    read_lines,
    too_large,
)
from kerasgen.errors import CorpusArgumentError, CorpusFormatError

_HEADER = "The first row names the columns. "
_TOO_LONG_FOR_CSV = "field larger than field limit"


@dataclass(frozen=True)
class Csv(FileCorpus):
    r"""Comma-separated values with a header: each row is a document, and one of its columns is the text.

    The row's other columns become the document's metadata. A blank row or text is dropped and counted as "empty".
    A text may hold line ends if it is quoted, and be of any length.

    Args:
        path: a file, a folder (its .csv files, and .tsv where the delimiter is a tab, in folders below it too) or a
            glob; files may be compressed (.gz, .bz2, .xz, .zst).
        field: the name of the column that holds the text.
        delimiter: one character between the columns; "tab" is the tab character.
        on_error: "raise" an error at what can't be read, or "skip" and count it.
        prompt: the name of the column that holds a prompt, which is read and not learned. It needs `response`; the
            document is the prompt, the separator and the response.
        response: the name of the column that holds what is learned after the prompt.
        separator: what stands between both; "\\n" by default, so that a model is prompted with a prompt and a line end.
        chosen: in place of `response`, the name of the column that holds the better answer of a pair; `prompt` may be
            left out. What is wrong with a pair (an empty answer, two equal ones) is an error that names its line.
        rejected: the name of the column that holds the worse answer. A prompt and its answers may be lists of
            messages, as JSON, which the model's chat template writes; without `prompt`, both answers are whole
            conversations that begin alike.
        messages: the name of the column that holds a conversation, as JSON: a list of objects with a `role` and a
            `content`, of which the assistant's are learned; the column `tools`, where there is one, goes with it. What
            is wrong with a conversation is an error that names its line.
        encoding: the encoding of the files, by Python's name for it.

    Raises:
        CorpusArgumentError: a setting is wrong.
    """

    path: str | os.PathLike[str]
    field: str = "text"
    delimiter: str = ","
    on_error: OnError = "raise"
    prompt: str | None = None
    response: str | None = None
    separator: str = "\n"
    chosen: str | None = None
    rejected: str | None = None
    messages: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", check_path(self.path))
        check_name(self.field, "field")
        check_encoding(self.encoding)
        self._prompted  # noqa: B018  (what is wrong is told now)
        if self.delimiter == "tab":  # a spec string can't hold the character itself: its ends are stripped
            object.__setattr__(self, "delimiter", "\t")
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1 or self.delimiter in '\r\n"\0':
            raise CorpusArgumentError(
                f"delimiter must be one character, not a quote or line end, or 'tab'. Received: {self.delimiter!r}."
            )
        check_on_error(self.on_error)

    @cached_property
    def _prompted(self) -> prompted.Fields | None:
        return prompted.fields_of(self)

    def _files(self) -> list[File]:
        return find_files(os.fspath(self.path), (".csv", ".tsv") if self.delimiter == "\t" else (".csv",))

    def _records(self, file: File) -> Iterator[Document | Dropped]:
        head = head_of(file.path)
        wrong = kind_of(head) or json_kind(head)
        if wrong is not None and not extends_ascii(self.encoding) and (is_encoded_text(wrong) or wrong == BINARY):
            wrong = None
        if wrong is not None:
            yield another_kind(file, "CSV", wrong)
            return
        rows = _rows(file, self.delimiter, self.encoding)
        header: list[str] | None = None
        for number, row in rows:
            if isinstance(row, Dropped):
                if header is None and row.error is not None:
                    raise row.error  # without its header the file can't be read, not even row by row
                yield row
            elif not row:
                yield Dropped("empty")
            elif header is None:
                header = row
            else:
                yield self._document(row, header, file, number)
        if header is None:
            yield fault("no header", file, 1, " is where a header was expected: the first row names the columns")

    def _document(self, row: list[str], header: list[str], file: File, number: int) -> Document | Dropped:
        fields = self._prompted
        named = (self.field,) if fields is None else fields.names
        for column in named if self.messages is None else (self.messages,):
            if column not in header:
                return no_field(column, "column", file, 1, header, _other_delimiter(header) or _HEADER)
            if header.count(column) > 1:
                return fault(f"two columns {column!r}", file, 1, f": two columns are called {column!r}")
        if len(row) != len(header):
            return fault(
                "wrong number of columns",
                file,
                number,
                f" has {len(row)} columns where the header has {len(header)}: a delimiter or a quote in it is not "
                f"quoted, or the file has another delimiter than {self.delimiter!r}",
            )
        metadata: dict[str, Any] = dict(zip(header, row, strict=True))
        if self.messages is not None:
            return self._of_messages(metadata, self.messages, file, number)
        if fields is not None:
            try:
                metadata = fields.parsed(metadata)
            except ValueError as cause:
                what = f": its column {TOOLS!r} is not JSON: {cause}"
                return fault(f"column {TOOLS!r} not JSON", file, number, what, cause)
            if fields.holds_messages(metadata):
                return checked(partial(fields.conversation, metadata, id=f"{file.name}:{number}"), file, number)
            wrong = fields.wrong_pair(metadata)
            if wrong is not None:
                return fault(wrong, file, number, f" holds no pair: {wrong}")
            if not metadata[fields.response].strip():
                return Dropped("empty response")
            return fields.document(metadata, id=f"{file.name}:{number}")
        text = metadata.pop(self.field)
        return Document(text=text, id=f"{file.name}:{number}", metadata=metadata) if text.strip() else Dropped("empty")

    def _of_messages(self, row: dict[str, Any], messages: str, file: File, number: int) -> Document | Dropped:
        if not row.get(TOOLS, "").strip():
            row.pop(TOOLS, None)
        for column in (messages, TOOLS):
            try:
                row |= {column: limits.parse_json(row[column])} if column in row else {}
            except ValueError as cause:
                what = f": its column {column!r} is not JSON: {cause}"
                return fault(f"column {column!r} not JSON", file, number, what, cause)
        return conversation(row, messages, f"{file.name}:{number}", file, number)


def _rows(file: File, delimiter: str, encoding: str) -> Iterator[tuple[int, list[str] | Dropped]]:
    """Yield each row with the number of the line that it starts at."""
    undecoded: list[CorpusFormatError] = []
    fed: list[str] = []  # the lines of this row
    count = 0

    def texts() -> Iterator[str]:
        nonlocal count
        for line in read_lines(file.path, encoding, keep_cr=True):
            count += 1
            try:
                fed.append(decode_line(line, file, encoding))
            except CorpusFormatError as error:
                # Read on as if, so that a bad byte inside a quoted text doesn't tear its row apart.
                undecoded.append(error)
                fed.append(line.raw.decode(encoding if extends_ascii(encoding) else "utf-8", "replace"))
            yield fed[-1]

    lines = texts()
    # strict: a quote that is not closed is an error, and not a text that swallows the rest of the file.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        undecoded.clear()
        fed.clear()
        number = count + 1
        try:
            row: list[str] | Dropped = next(reader)
        except StopIteration:
            return
        except csv.Error as cause:
            if _TOO_LONG_FOR_CSV not in str(cause):
                row = fault("not CSV", file, number, f" starts a row that is not CSV: {cause}", cause)
            else:
                try:
                    row = csv_rows.parse(
                        itertools.chain(fed.copy(), lines),
                        delimiter,
                        too_large=partial(too_large, file.path, "a row", number),
                    )
                except csv.Error as problem:
                    row = fault("not CSV", file, number, f" starts a row that is not CSV: {problem}", problem)
        yield number, Dropped(f"not {encoding}", undecoded[0]) if undecoded else row


def _other_delimiter(header: list[str]) -> str:
    """Return advice where a header of one column looks as if another delimiter stood between several."""
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if other is None:
        return ""
    return f"Its columns look divided by {other!r}: pass delimiter={'tab' if other == chr(9) else other!r}. "
