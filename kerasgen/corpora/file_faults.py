"""Makes the errors about records of files that can't be read, each with its file and line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kerasgen.corpora import conversations
from kerasgen.corpora.base import Document
from kerasgen.corpora.file_corpus import Dropped
from kerasgen.corpora.file_kinds import advice, is_encoded_text
from kerasgen.corpora.paths import File
from kerasgen.errors import CorpusFormatError


def conversation(record: dict[str, Any], field: str, name: str, file: File, line: int) -> Document | Dropped:
    """Return the document of a record's conversation in the field of that name, or what is wrong with it."""
    return checked(partial(conversations.from_record, record, field, id=name), file, line)


def checked(make: Callable[[], Document], file: File, line: int) -> Document | Dropped:
    """Return the document of a conversation, or what is wrong with that."""
    try:
        return make()
    except conversations.ConversationError as error:
        return fault(error.reason, file, line, f": {error.what}")


def another_kind(file: File, wanted: str, kind: str, do: str | None = None) -> Dropped:
    """Return the error about a file of another kind than its corpus reads."""
    if wanted == "JSON" and is_encoded_text(kind):
        kind, do = kind.split(" (")[0], "Convert it to UTF-8."
    error = CorpusFormatError(f"{str(file.path)!r} is no {wanted} but {kind}. {do or advice(kind)}", path=file.path)
    return Dropped(f"no {wanted} but {kind.split(' (')[0]}", error)


def no_field(name: str, noun: str, file: File, line: int, field_names: list[str], advice: str = "") -> Dropped:
    """Return the error about a record that lacks a field or column; `noun` is which of them."""
    problem = f": there is no {noun} {name!r}; there are: {', '.join(map(repr, field_names)) or 'none'}"
    return fault(
        f"no {noun} {name!r}", file, line, problem, do=f"{advice}Name another {noun}, or pass on_error='skip'."
    )


def fault(
    reason: str,
    file: File,
    line: int,
    what: str,
    cause: Exception | None = None,
    do: str = "Mend the file, or pass on_error='skip' to count and leave out what can't be read.",
) -> Dropped:
    """Return the error about one record.

    Args:
        reason: what the record is counted under, if it is left out.
        file: where it stands.
        line: at which it begins, counted from 1.
        what: is wrong; it follows the file and the line.
        cause: what was raised, if anything.
        do: what to do about it.
    """
    error = CorpusFormatError(f"{str(file.path)!r}, line {line}{what}. {do}", path=file.path, line=line)
    error.__cause__ = cause
    return Dropped(reason, error)
