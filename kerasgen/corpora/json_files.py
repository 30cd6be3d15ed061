"""Reads documents from files of JSON lines, or of JSON with an array of records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from kerasgen.corpora import prompted
from kerasgen.corpora.base import Document
from kerasgen.corpora.file_corpus import Dropped, FileCorpus
from kerasgen.corpora.file_faults import another_kind, checked, conversation, fault, no_field
from kerasgen.corpora.file_kinds import kind_of
from kerasgen.corpora.json_records import Fault, Record, read_records
from kerasgen.corpora.paths import File, find_files
from kerasgen.corpora.streams import OnError, check_name, check_on_error, check_path, head_of
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError


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
            yield another_kind(file, "JSON", wrong)
            return
        needed = self.messages or (self.field if self._prompted is None else self._prompted.response)
        for record in read_records(file, needed):
            yield Dropped("empty") if record.value is None else self._document(record, file)

    def _document(self, entry: Record, file: File) -> Document | Dropped:
        record, line = entry.value, entry.line
        if isinstance(record, Fault):
            if isinstance(record.cause, CorpusFormatError):
                return Dropped(record.reason, record.cause)
            return fault(record.reason, file, line, record.what, record.cause)
        value: Any = record
        plain = self._prompted is None and self.messages is None
        if isinstance(record, str) and plain and entry.name.startswith("#"):  # an array of texts
            record = {}
        elif not isinstance(record, dict):
            return fault("not a JSON object", file, line, f" is no JSON object but {_kind(record)}")
        elif self.messages is not None:
            return self._of_messages(entry, record, self.messages, file)
        elif self._prompted is not None:
            return self._of_prompt(entry, record, self._prompted, file)
        elif self.field not in record:
            return no_field(self.field, "field", file, line, list(record))
        else:
            value = record.pop(self.field)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            return fault(
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
                return no_field(field, "field", file, entry.line, list(record))
            if not fields.holds_messages(record) and not isinstance(record[field], str):
                kind = _kind(record[field])
                what = f": the field {field!r} is {kind} where text is needed"
                return fault(f"field {field!r} not text", file, entry.line, what)
        name = self._id(entry, dict(record), file, [])  # a copy: the id may be one of these fields
        if isinstance(name, Dropped):
            return name
        if self.id_field is not None and self.id_field not in fields.names:
            del record[self.id_field]
        if fields.holds_messages(record):
            return checked(partial(fields.conversation, record, id=name), file, entry.line)
        wrong = fields.wrong_pair(record)
        if wrong is not None:
            return fault(wrong, file, entry.line, f" holds no pair: {wrong}")
        if not record[fields.response].strip():
            return Dropped("empty response")
        return fields.document(record, id=name)

    def _of_messages(self, entry: Record, record: dict[str, Any], messages: str, file: File) -> Document | Dropped:
        if messages not in record:
            return no_field(messages, "field", file, entry.line, list(record))
        talk = record.pop(messages)
        name = self._id(entry, record, file, [messages])
        if isinstance(name, Dropped):
            return name
        return conversation({**record, messages: talk}, messages, name, file, entry.line)

    def _id(self, entry: Record, record: dict[str, Any], file: File, taken: list[str]) -> str | Dropped:
        """Return the document's id, which is taken out of the record, or why it has none."""
        if self.id_field is None:
            name: Any = f"{file.name}{'' if entry.name.startswith('#') else ':'}{entry.name}"
        elif self.id_field not in record:
            return no_field(self.id_field, "field", file, entry.line, [*taken, *record])
        else:
            name = record.pop(self.id_field)
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            return fault(
                f"field {self.id_field!r} not an id",
                file,
                entry.line,
                f": the field {self.id_field!r} is {_kind(name)} where text or a whole number is needed",
            )
        return str(name)


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
