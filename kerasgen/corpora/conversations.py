"""Makes documents of conversations: lists of messages with a role and a content, whose answers are learned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kerasgen.corpora.base import Conversation, Document, Part

TOOLS: Final = "tools"
"""The field of a record that says which tools the assistant may call, as JSON schemas."""

SYSTEM_ROLES: Final = ("system", "developer")
_TOOL: Final = ("tool", "function", "ipython")
ROLES: Final = (*SYSTEM_ROLES, "user", "assistant", *_TOOL)
# The keys and roles of ShareGPT's form, in which many conversations were published.
_OTHER_KEYS: Final = {"role": "from", "content": "value"}
_OTHER_ROLES: Final = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


class ConversationError(ValueError):
    """What is wrong with a conversation.

    Args:
        reason: to count it under.
        what: to say after where it stands.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason, self.what = reason, what


def conversation(messages: Any, tools: Any = None, *, answered: bool = True) -> Conversation:
    """Return the conversation of a list of messages, checked.

    Args:
        messages: objects with a `role` and a `content` (or ShareGPT's `from` and `value`).
        tools: a list of JSON schemas, or None.
        answered: whether the last message must be the assistant's, to learn from; else it must be another's, to answer.

    Raises:
        ConversationError: it is none, a field is missing, an answer is empty, or the roles come in no order in which
            people, an assistant and its tools take turns.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise ConversationError(
            "no list of messages", f"a conversation is a list of messages, and not {messages!r:.60}"
        )
    if not messages:
        raise ConversationError("empty conversation", "the conversation has no message")
    made = tuple(_message(message, n) for n, message in enumerate(messages))
    _check_order(made, answered=answered)
    if tools is not None and (not isinstance(tools, Sequence) or isinstance(tools, (str, bytes))):
        raise ConversationError("tools no list", f"its tools are {tools!r:.60}, and not a list of JSON schemas")
    if tools is not None:
        for n, tool in enumerate(tools):
            if not isinstance(tool, Mapping):
                raise ConversationError(
                    "a tool no JSON schema", f"its tool {n} is {tool!r:.60}, and not the object of a JSON schema"
                )
    return Conversation(made, tuple(tools) if tools else None)


def document(talk: Conversation, *, id: str, metadata: Mapping[str, Any] | None = None) -> Document:  # noqa: A002
    """Return the document of a conversation: its text is what was said, a line end between two messages.

    Args:
        talk: whose answers are learned, each with its message's `weight` where it has one.
        id: the document's.
        metadata: what else is known of it.
    """
    parts: list[Part] = []
    for message in talk.messages:
        if parts:
            parts.append(Part("\n", 0))
        role = message["role"]
        weight = message.get("weight", 1.0) if role == "assistant" else 0
        parts.append(Part(_said(message), weight, role))
    return Document("".join(part.text for part in parts), id, metadata or {}, tuple(parts), conversation=talk)


def from_record(record: Mapping[str, Any], field: str, *, id: str) -> Document:  # noqa: A002 - its name
    """Return the document of a record that holds a conversation, whose other fields become its metadata.

    Args:
        record: holds the messages in one field, and perhaps `tools`.
        field: the name of that field.
        id: the document's.

    Raises:
        ConversationError: as `conversation`.
    """
    others = {name: value for name, value in record.items() if name not in (field, TOOLS)}
    return document(conversation(record[field], record.get(TOOLS)), id=id, metadata=others)


def _message(message: Any, place: int) -> dict[str, Any]:
    """Return a message as a template takes it, checked by itself."""
    if not isinstance(message, Mapping):
        raise ConversationError("a message no object", f"message {place} is {message!r:.60}, and no object with a role")
    made = dict(message)
    for key, other in _OTHER_KEYS.items():
        if key not in made and other in made:
            made[key] = made.pop(other)
    role = made.get("role")
    if isinstance(role, str):
        role = made["role"] = _OTHER_ROLES.get(role, role)
    if role not in ROLES:
        said = "has no role" if role is None else f"has the role {role!r:.40}"
        raise ConversationError("unknown role", f"message {place} {said}; roles are {', '.join(ROLES)}")
    calls = role == "assistant" and bool(made.get("tool_calls"))
    content = made.get("content")
    if isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        content = made["content"] = _joined(content, place)
    if content is None and calls:
        return made
    if not isinstance(content, str):
        said = "has no content" if content is None else f"has a content that is no text but {content!r:.40}"
        raise ConversationError("content missing" if content is None else "content no text", f"message {place} {said}")
    if role == "assistant" and not content.strip() and not calls:
        raise ConversationError("empty answer", f"message {place}, an answer of the assistant, is empty")
    weight = made.get("weight", 1)
    if role == "assistant" and (isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight < 0):
        raise ConversationError("a weight no number", f"message {place} has the weight {weight!r:.40}")
    return made


def _joined(pieces: Sequence[Any], place: int) -> str:
    """Return a content that comes as a list of pieces of text."""
    texts = [piece.get("text") if isinstance(piece, Mapping) else piece for piece in pieces]
    wrong = next((piece for piece, text in zip(pieces, texts, strict=True) if not isinstance(text, str)), None)
    if wrong is not None:
        raise ConversationError("content no text", f"message {place} has a content that is no text but {wrong!r:.60}")
    return "".join(map(str, texts))


def _check_order(messages: tuple[Mapping[str, Any], ...], *, answered: bool) -> None:
    before = "begin"
    for place, message in enumerate(messages):
        role = message["role"]
        kind = "system" if role in SYSTEM_ROLES else "tool" if role in _TOOL else role
        allowed = {
            "begin": ("system", "user"),
            "system": ("system", "user"),
            "user": ("assistant",),
            "assistant": ("user", "tool"),
            "tool": ("tool", "assistant"),
        }[before]
        if kind not in allowed:
            after = "at the beginning" if before == "begin" else f"after one of {messages[place - 1]['role']!r}"
            raise ConversationError(
                "roles out of order",
                f"message {place}, of {role!r}, stands {after}, where one of {' or '.join(map(repr, allowed))} is "
                "expected",
            )
        before = kind
    if answered and before != "assistant":
        raise ConversationError(
            "no answer at the end", f"its last message is of {messages[-1]['role']!r}, and nobody answers it"
        )
    if not answered and before not in ("user", "tool"):
        raise ConversationError(
            "nothing to answer",
            f"its last message is of {messages[-1]['role']!r}, where one of 'user' is to be answered",
        )


def _said(message: Mapping[str, Any]) -> str:
    """Return what a message says: its content, and the calls of tools as JSON."""
    calls = message.get("tool_calls") if message["role"] == "assistant" else None
    said = [message.get("content") or ""]
    if calls:
        said.append(json.dumps(calls, ensure_ascii=False, sort_keys=True, default=repr))
    return "\n".join(filter(None, said))
