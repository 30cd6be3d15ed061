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
    """A conversation that can't be learned from; the message says why.

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
    parts = _parts(talk)
    return Document("".join(part.text for part in parts), id, metadata or {}, parts, conversation=talk)


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


def answered(prompt: Any, answer: Any, tools: Any = None) -> Conversation:
    """Return the conversation of a prompt, which is only read, and what follows it, whose answers are learned.

    Args:
        prompt: a list of messages, or a text, which is a user's.
        answer: a list of messages, or a text, which is the assistant's.
        tools: as in `conversation`.

    Raises:
        ConversationError: as `conversation`; or nothing that follows the prompt is learned.
    """
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    after = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    for messages in (before, after):
        if not is_list(messages):
            conversation(messages)  # says that it is none
    return _learned(conversation([*before, *after], tools), len(before))


def pair(prompt: Any, chosen: Any, rejected: Any, tools: Any = None) -> tuple[Conversation, Conversation]:
    """Return two conversations that begin alike: with the better answer and with the worse one.

    Args:
        prompt: a list of messages or a user's text, behind which both answers stand. None where these are whole
            conversations, whose messages up to the first that differs are the prompt; a text may be given there too.
        chosen: a list of messages, or the assistant's text.
        rejected: likewise.
        tools: as in `conversation`.

    Raises:
        ConversationError: as `conversation`; or the two have no prompt in common, or are one.
    """
    if is_list(chosen) != is_list(rejected):
        raise ConversationError(
            "one answer a list", "one of its two answers is a list of messages and the other is none"
        )
    whole = is_list(chosen) and bool(chosen) and _role(chosen[0]) not in ("assistant", None)
    if prompt is None and not whole:
        for answer in (chosen, rejected):
            conversation(answer, tools)  # says that it begins with no prompt
    if not whole or is_list(prompt):
        talks = [answered(prompt, answer, tools) for answer in (chosen, rejected)]
    else:
        talks = _sharing_prompt([conversation(answer, tools) for answer in (chosen, rejected)], prompt)
    if talks[0] == talks[1]:
        raise ConversationError("equal answers", "its chosen and its rejected answer are equal")
    return talks[0], talks[1]


def pair_document(
    talks: tuple[Conversation, Conversation],
    *,
    id: str,  # noqa: A002 - its name
    metadata: Mapping[str, Any] | None = None,
) -> Document:
    """Return the document of a pair of conversations; its text is that of the better one.

    Args:
        talks: the better and the worse one, as `pair` returns them.
        id: the document's.
        metadata: what else is known of it.
    """
    better, worse = talks
    chosen, rejected = _parts(better), _parts(worse)
    text = "".join(part.text for part in chosen)
    return Document(text, id, metadata or {}, chosen, rejected, better, worse)


def is_list(value: Any) -> bool:
    """Return whether a value can be a list of messages."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _role(message: Any) -> str | None:
    """Return the role of a message that isn't checked yet; None where it has none."""
    role = message.get("role", message.get("from")) if isinstance(message, Mapping) else None
    return _OTHER_ROLES.get(role, role) if isinstance(role, str) else None


def _sharing_prompt(talks: Sequence[Conversation], prompt: str | None) -> list[Conversation]:
    """Return whole conversations, of which the messages that both begin with are only read."""
    both = list(zip(talks[0].messages, talks[1].messages, strict=False))
    shared = next((n for n, (one, other) in enumerate(both) if one != other), len(both))
    for name, talk, other in (("chosen", talks[0], talks[1]), ("rejected", talks[1], talks[0])):
        if shared == len(talk.messages) < len(other.messages):
            raise ConversationError(
                "one conversation within the other", f"all its {name} messages stand in the other conversation too"
            )
    differs = next((talk.messages[shared] for talk in talks if shared < len(talk.messages)), None)
    if differs is None:
        raise ConversationError("equal answers", "its chosen and its rejected answer are equal")
    wrong = next((talk for talk in talks if talk.messages[shared]["role"] != "assistant"), None)
    if wrong is not None or shared == 0:
        raise ConversationError(
            "two prompts",
            f"its chosen and its rejected conversation differ before an answer does: in message {shared}, of "
            f"{(wrong or talks[0]).messages[shared]['role']!r}",
        )
    if prompt is not None and prompt.strip() not in [_said(one).strip() for one, _ in both[:shared]]:
        raise ConversationError(
            "two prompts", f"its prompt {prompt!r:.60} is no message that both conversations begin with"
        )
    return [_learned(talk, shared) for talk in talks]


def _learned(talk: Conversation, read: int) -> Conversation:
    """Return a conversation whose first messages are a prompt."""
    made = Conversation(talk.messages, talk.tools, read)
    if not any(made.weights()):
        raise ConversationError("nothing learned", "no answer behind its prompt has a weight above 0")
    return made


def _parts(talk: Conversation) -> tuple[Part, ...]:
    """Return what was said in parts, a line end between two messages."""
    parts: list[Part] = []
    for message, weight in zip(talk.messages, talk.weights(), strict=True):
        if parts:
            parts.append(Part("\n", 0))
        parts.append(Part(_said(message), weight, message["role"]))
    return tuple(parts)


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
