"""Reads documents from files of text, JSON and CSV, one record at a time, compressed or not."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from kerasgen import keywords, limits
from kerasgen.corpora import conversations, csv_rows, prompted
from kerasgen.corpora.base import Document
from kerasgen.corpora.conversations import TOOLS
from kerasgen.corpora.file_corpus import Dropped, FileCorpus
from kerasgen.corpora.file_kinds import BINARY, advice, is_encoded_text, json_kind, kind_of
from kerasgen.corpora.json_records import Fault, Record, read_records
from kerasgen.corpora.paths import File, find_files, has_suffix
from kerasgen.corpora.streams import (
    Line,
    OnError,
    check_name,
    check_on_error,
    check_path,
    decode_line,
    extends_ascii,
    head_of,
    read_lines,
    too_large,
)
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError

SPLITS = ("file", "line", "paragraph")

_LINE_BYTES = 150  # what Python takes for a line, beside its bytes
_TOO_LONG_FOR_CSV = "field larger than field limit"


@dataclass(frozen=True)
class Text(FileCorpus):
    r"""Plain text: each file, line or paragraph is a document.

    Line ends become "\n". A document of nothing but white space is dropped and counted as "empty"; the blank lines
    between paragraphs are no documents.

    Args:
        path: a file, a folder (its .txt and .text files, in folders below it too) or a glob; files may be compressed
            (.gz, .bz2, .xz, .zst).
        split: what is a document: the whole "file", each "line", or each "paragraph" (lines up to a blank one).
        encoding: the encoding of the files, by Python's name for it.
        on_error: "raise" an error at what can't be read, or "skip" and count it.
        check_kind: whether a file of JSON, CSV or no text at all is an error, that says what it is.

    Raises:
        CorpusArgumentError: a setting is wrong.
    """

    path: str | os.PathLike[str]
    split: Literal["file", "line", "paragraph"] = "file"
    encoding: str = "utf-8"
    on_error: OnError = "raise"
    check_kind: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", check_path(self.path))
        if self.split not in SPLITS:
            hint = keywords.meant(self.split, SPLITS)
            raise CorpusArgumentError(f"split must be one of {', '.join(SPLITS)}. Received: {self.split!r}.{hint}")
        try:
            # Encoding something tells a text encoding from Python's others ("hex", "zip").
            "\n".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, TypeError, ValueError) as cause:
            raise CorpusArgumentError(
                f"encoding must be a text encoding that Python knows, such as 'utf-8' or 'gb18030'. "
                f"Received: {self.encoding!r}."
            ) from cause
        check_on_error(self.on_error)
        if not isinstance(self.check_kind, bool):
            raise CorpusArgumentError(f"check_kind must be True or False. Received: {self.check_kind!r}.")

    def _files(self) -> list[File]:
        return find_files(os.fspath(self.path), (".txt", ".text"))

    def _records(self, file: File) -> Iterator[Document | Dropped]:
        wrong = self._wrong_kind(file) if self.check_kind else None
        if wrong is not None:
            do = advice(wrong)
            if "JSON" in wrong or "CSV" in wrong:
                do += " To read it as it stands, pass check_kind=False."
            yield _another_kind(file, "plain text", wrong, do)
            return
        if self.split == "file":
            yield self._document(read_lines(file.path, self.encoding), file, id=file.name)
            return
        paragraph: list[Line] = []
        limit, size_bytes = limits.Limits.current().document_bytes, 0
        for line in read_lines(file.path, self.encoding):
            if self.split == "line":
                yield self._document([line], file, id=f"{file.name}:{line.number}")
            elif not self._is_blank(line, file):
                paragraph.append(line)
                # An object for each line: many short ones take more than their bytes.
                size_bytes += len(line.raw) + _LINE_BYTES
                if size_bytes > limit:
                    raise too_large(file.path, "a paragraph", paragraph[0].number)
            elif paragraph:
                yield self._document(paragraph, file, id=f"{file.name}:{paragraph[0].number}")
                paragraph, size_bytes = [], 0
        if paragraph:
            yield self._document(paragraph, file, id=f"{file.name}:{paragraph[0].number}")

    def _wrong_kind(self, file: File) -> str | None:
        head = head_of(file.path)
        wrong = kind_of(head)
        if not extends_ascii(self.encoding):
            return None if wrong is None or is_encoded_text(wrong) or wrong == BINARY else wrong
        if wrong is None and has_suffix(file.path, (".csv", ".tsv")):
            return "a CSV file, by its name"
        return json_kind(head) if wrong is None else wrong

    def _is_blank(self, line: Line, file: File) -> bool:
        try:
            # Decoded: the ideographic space is white space too.
            return not decode_line(line, file, self.encoding).strip()
        except CorpusFormatError:
            return False

    def _document(self, lines: Iterable[Line], file: File, *, id: str) -> Document | Dropped:  # noqa: A002 - its name
        limit, size_bytes, parts = limits.Limits.current().document_bytes, 0, io.StringIO()
        for line in lines:
            size_bytes += len(line.raw)
            if size_bytes > limit:
                raise too_large(file.path, "a document")
            try:
                parts.write(decode_line(line, file, self.encoding))
            except CorpusFormatError as error:
                return Dropped(f"not {self.encoding}", error)
        text = parts.getvalue()
        if not text.strip():
            return Dropped("empty")
        return Document(text=text if self.split == "file" else text.removesuffix("\n"), id=id)


@dataclass(frozen=True)
class Jsonl(FileCorpus):
    r"""JSON: each line is an object, or each item of an array is, and one of its fields is the text.

    The object's other fields become the document's metadata. A blank line or text is dropped and counted as "empty".
    An array may also hold the texts themselves, and stand as the one list in an object. An array is read item by item.

    Args:
        path: a file, a folder (its .jsonl and .ndjson files, or .json files where there are none of those, in folders
            below it too) or a glob; files may be compressed (.gz, .bz2, .xz, .zst). The encoding is UTF-8.
        field: the name of the field that holds the text, or a list of texts, which become its lines.
        id_field: the name of the field that holds the document's id, text or a whole number; without it the id is
            the file's name and the line.
        on_error: "raise" an error at what can't be read, or "skip" and count it.
        prompt: the name of the field that holds a prompt, which is read and not learned. It needs `response`; the
            document is the prompt, the separator and the response.
        response: the name of the field that holds what is learned after the prompt.
        separator: what stands between both; "\\n" by default, so that a model is prompted with a prompt and a line end.
        chosen: in place of `response`, the name of the field that holds the better answer of a pair; `prompt` may be
            left out. What is wrong with a pair (an empty answer, two equal ones) is an error that names its line.
        rejected: the name of the field that holds the worse answer. A prompt and its answers may be lists of
            messages, which the model's chat template writes; without `prompt`, both answers are whole
            conversations that begin alike.
        messages: the name of the field that holds a conversation: a list of objects with a `role` and a `content`, of
            which the assistant's are learned; the field `tools`, where there is one, goes with it. What is wrong with
            a conversation is an error that names its line.

    Raises:
        CorpusArgumentError: a setting is wrong.
    """

    path: str | os.PathLike[str]
    field: str = "text"
    id_field: str | None = None
    on_error: OnError = "raise"
    prompt: str | None = None
    response: str | None = None
    separator: str = "\n"
    chosen: str | None = None
    rejected: str | None = None
    messages: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", check_path(self.path))
        check_name(self.field, "field")
        self._prompted  # noqa: B018  (what is wrong is told now)
        if self.id_field is not None:
            check_name(self.id_field, "id_field")
        check_on_error(self.on_error)

    @cached_property
    def _prompted(self) -> prompted.Fields | None:
        return prompted.fields_of(self)

    def _files(self) -> list[File]:
        path = os.fspath(self.path)
        try:
            return find_files(path, (".jsonl", ".ndjson"))
        except CorpusUnavailableError:
            if not Path(path).expanduser().is_dir():
                raise
            # A folder of JSON lines often holds a .json file that describes it, so those count only by themselves.
            return find_files(path, (".jsonl", ".ndjson", ".json"))

    def _records(self, file: File) -> Iterator[Document | Dropped]:
        wrong = kind_of(head_of(file.path))
        if wrong is not None:
            yield _another_kind(file, "JSON", wrong)
            return
        needed = self.messages or (self.field if self._prompted is None else self._prompted.response)
        for record in read_records(file, needed):
            yield Dropped("empty") if record.value is None else self._document(record, file)

    def _document(self, entry: Record, file: File) -> Document | Dropped:
        record, line = entry.value, entry.line
        if isinstance(record, Fault):
            if isinstance(record.cause, CorpusFormatError):
                return Dropped(record.reason, record.cause)
            return _fault(record.reason, file, line, record.what, record.cause)
        value: Any = record
        plain = self._prompted is None and self.messages is None
        if isinstance(record, str) and plain and entry.name.startswith("#"):  # an array of texts
            record = {}
        elif not isinstance(record, dict):
            return _fault("not a JSON object", file, line, f" is no JSON object but {_kind(record)}")
        elif self.messages is not None:
            return self._of_messages(entry, record, self.messages, file)
        elif self._prompted is not None:
            return self._of_prompt(entry, record, self._prompted, file)
        elif self.field not in record:
            return _no_field(self.field, "field", file, line, list(record))
        else:
            value = record.pop(self.field)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            return _fault(
                f"field {self.field!r} not text",
                file,
                line,
                f": the field {self.field!r} is {_kind(value)} where text or a list of texts is needed",
            )
        name = self._id(entry, record, file, [self.field])
        if isinstance(name, Dropped):
            return name
        return Document(text=value, id=name, metadata=record) if value.strip() else Dropped("empty")

    def _of_prompt(
        self, entry: Record, record: dict[str, Any], fields: prompted.Fields, file: File
    ) -> Document | Dropped:
        for field in fields.names:
            if field not in record:
                return _no_field(field, "field", file, entry.line, list(record))
            if not fields.holds_messages(record) and not isinstance(record[field], str):
                kind = _kind(record[field])
                what = f": the field {field!r} is {kind} where text is needed"
                return _fault(f"field {field!r} not text", file, entry.line, what)
        name = self._id(entry, dict(record), file, [])  # a copy: the id may be one of these fields
        if isinstance(name, Dropped):
            return name
        if self.id_field is not None and self.id_field not in fields.names:
            del record[self.id_field]
        if fields.holds_messages(record):
            return _checked(partial(fields.conversation, record, id=name), file, entry.line)
        wrong = fields.wrong_pair(record)
        if wrong is not None:
            return _fault(wrong, file, entry.line, f" holds no pair: {wrong}")
        if not record[fields.response].strip():
            return Dropped("empty response")
        return fields.document(record, id=name)

    def _of_messages(self, entry: Record, record: dict[str, Any], messages: str, file: File) -> Document | Dropped:
        if messages not in record:
            return _no_field(messages, "field", file, entry.line, list(record))
        talk = record.pop(messages)
        name = self._id(entry, record, file, [messages])
        if isinstance(name, Dropped):
            return name
        return _conversation({**record, messages: talk}, messages, name, file, entry.line)

    def _id(self, entry: Record, record: dict[str, Any], file: File, taken: list[str]) -> str | Dropped:
        """Return the document's id, which is taken out of the record, or why it has none."""
        if self.id_field is None:
            name: Any = f"{file.name}{'' if entry.name.startswith('#') else ':'}{entry.name}"
        elif self.id_field not in record:
            return _no_field(self.id_field, "field", file, entry.line, [*taken, *record])
        else:
            name = record.pop(self.id_field)
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            return _fault(
                f"field {self.id_field!r} not an id",
                file,
                entry.line,
                f": the field {self.id_field!r} is {_kind(name)} where text or a whole number is needed",
            )
        return str(name)


@dataclass(frozen=True)
class Csv(FileCorpus):
    r"""Comma-separated values with a header: each row is a document, and one of its columns is the text.

    The row's other columns become the document's metadata. A blank row or text is dropped and counted as "empty".
    A text may hold line ends if it is quoted, and be of any length.

    Args:
        path: a file, a folder (its .csv files, and .tsv where the delimiter is a tab, in folders below it too) or a
            glob; files may be compressed (.gz, .bz2, .xz, .zst). The encoding is UTF-8.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", check_path(self.path))
        check_name(self.field, "field")
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
        if wrong is not None:
            yield _another_kind(file, "CSV", wrong)
            return
        rows = _rows(file, self.delimiter)
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
            yield _fault("no header", file, 1, " is where a header was expected: the first row names the columns")

    def _document(self, row: list[str], header: list[str], file: File, number: int) -> Document | Dropped:
        fields = self._prompted
        named = (self.field,) if fields is None else fields.names
        for column in named if self.messages is None else (self.messages,):
            if column not in header:
                return _no_field(column, "column", file, 1, header, _other_delimiter(header))
            if header.count(column) > 1:
                return _fault(f"two columns {column!r}", file, 1, f": two columns are called {column!r}")
        if len(row) != len(header):
            return _fault(
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
                return _fault(f"column {TOOLS!r} not JSON", file, number, what, cause)
            if fields.holds_messages(metadata):
                return _checked(partial(fields.conversation, metadata, id=f"{file.name}:{number}"), file, number)
            wrong = fields.wrong_pair(metadata)
            if wrong is not None:
                return _fault(wrong, file, number, f" holds no pair: {wrong}")
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
                return _fault(f"column {column!r} not JSON", file, number, what, cause)
        return _conversation(row, messages, f"{file.name}:{number}", file, number)


def _rows(file: File, delimiter: str) -> Iterator[tuple[int, list[str] | Dropped]]:
    """Yield each row with the number of the line that it starts at."""
    undecoded: list[CorpusFormatError] = []
    fed: list[str] = []  # the lines of this row
    count = 0

    def texts() -> Iterator[str]:
        nonlocal count
        for line in read_lines(file.path, keep_cr=True):
            count += 1
            try:
                fed.append(decode_line(line, file))
            except CorpusFormatError as error:
                # Read on as if, so that a bad byte inside a quoted text doesn't tear its row apart.
                undecoded.append(error)
                fed.append(line.raw.decode("utf-8", "replace"))
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
                row = _fault("not CSV", file, number, f" starts a row that is not CSV: {cause}", cause)
            else:
                try:
                    row = csv_rows.parse(
                        itertools.chain(fed.copy(), lines),
                        delimiter,
                        too_large=partial(too_large, file.path, "a row", number),
                    )
                except csv.Error as problem:
                    row = _fault("not CSV", file, number, f" starts a row that is not CSV: {problem}", problem)
        yield number, Dropped("not utf-8", undecoded[0]) if undecoded else row


def _conversation(record: dict[str, Any], field: str, name: str, file: File, line: int) -> Document | Dropped:
    return _checked(partial(conversations.from_record, record, field, id=name), file, line)


def _checked(make: Callable[[], Document], file: File, line: int) -> Document | Dropped:
    """Return the document of a conversation, or what is wrong with that."""
    try:
        return make()
    except conversations.ConversationError as fault:
        return _fault(fault.reason, file, line, f": {fault.what}")


def _another_kind(file: File, wanted: str, kind: str, do: str | None = None) -> Dropped:
    error = CorpusFormatError(f"{str(file.path)!r} is no {wanted} but {kind}. {do or advice(kind)}", path=file.path)
    return Dropped(f"no {wanted} but {kind.split(' (')[0]}", error)


def _other_delimiter(header: list[str]) -> str:
    """Return advice where a header of one column looks as if another delimiter stood between several."""
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if other is None:
        return ""
    return f"Its columns look divided by {other!r}: pass delimiter={'tab' if other == chr(9) else other!r}. "


def _no_field(name: str, noun: str, file: File, line: int, field_names: list[str], advice: str = "") -> Dropped:
    problem = f": there is no {noun} {name!r}; there are: {', '.join(map(repr, field_names)) or 'none'}"
    return _fault(
        f"no {noun} {name!r}", file, line, problem, do=f"{advice}Name another {noun}, or pass on_error='skip'."
    )


def _fault(
    reason: str,
    file: File,
    line: int,
    what: str,
    cause: Exception | None = None,
    do: str = "Mend the file, or pass on_error='skip' to count and leave out what can't be read.",
) -> Dropped:
    error = CorpusFormatError(f"{str(file.path)!r}, line {line}{what}. {do}", path=file.path, line=line)
    error.__cause__ = cause
    return Dropped(reason, error)


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
