"""Makes documents of rows that a program holds: dicts of a text, of a prompt and its response, or of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kerasgen.corpora import conversations
from kerasgen.corpora.base import Document
from kerasgen.corpora.prompted import Fields

MESSAGES: Final = ("messages", "conversations")
_ANSWERS: Final = {"response": "\n", "completion": ""}
"""The fields of a response, and what stands between it and its prompt where both are text."""
FORMS: Final = (
    "{'text': …}, {'prompt': …, 'response': …}, {'prompt': …, 'completion': …}, {'prompt': …, 'chosen': …, 'rejected': "
    "…} or {'messages': […]}"
)


class RowError(ValueError):
    """What is wrong with a row, to say after which row it is."""


def is_known(row: Mapping[str, Any]) -> bool:
    """Return whether a row has the fields of one of `FORMS`."""
    answered = "prompt" in row and any(name in row for name in _ANSWERS)
    return any(name in row for name in MESSAGES) or answered or "rejected" in row or "text" in row


def document(row: Mapping[str, Any], *, id: str) -> Document | str:  # noqa: A002 - its name
    """Return the document of a row, whose other fields become its metadata, or why it is dropped.

    Args:
        row: has the fields of one of `FORMS`; a prompt and its answers may be lists of messages.
        id: the document's.

    Raises:
        RowError: it has not, or they hold something else.
    """
    try:
        return _document(row, id)
    except conversations.ConversationError as fault:
        raise RowError(f"holds no conversation that can be learned: {fault.what}") from fault


def _document(row: Mapping[str, Any], name: str) -> Document | str:
    pair = Fields("prompt" if "prompt" in row else None, "chosen", "\n", "rejected")
    if "chosen" in row and "rejected" in row and pair.holds_messages(row):
        return pair.conversation(row, id=name)
    for field in MESSAGES:
        if field in row:
            return conversations.from_record(row, field, id=name)
    if "rejected" in row:
        fields = pair
        _check_texts(row, fields)
        wrong = fields.wrong_pair(row)
        if wrong is not None:
            raise RowError(f"holds no pair: {wrong}")
        return fields.document(row, id=name)
    answer = next((field for field in _ANSWERS if field in row), None)
    if "prompt" in row and answer is not None:
        fields = Fields("prompt", answer, _ANSWERS[answer])
        if fields.holds_messages(row):
            return fields.conversation(row, id=name)
        _check_texts(row, fields)
        return fields.document(row, id=name) if row[answer].strip() else "empty response"
    if "text" in row:
        if not isinstance(row["text"], str):
            raise RowError(f"has a field 'text' that is no text but {row['text']!r:.60}")
        others = {key: value for key, value in row.items() if key != "text"}
        return Document(row["text"], name, others) if row["text"].strip() else "empty"
    raise RowError(f"has the fields {', '.join(map(repr, row)) or 'none'}. A row is one of {FORMS}")


def _check_texts(row: Mapping[str, Any], fields: Fields) -> None:
    for field in fields.names:
        if field not in row:
            raise RowError(f"has no field {field!r}; it has {', '.join(map(repr, row))}")
        if not isinstance(row[field], str):
            raise RowError(f"has a field {field!r} that is no text but {row[field]!r:.60}")
