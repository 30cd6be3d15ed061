"""Makes documents of a prompt and its response, which is learned, or of a better and a worse answer.

Each is a text, or a list of messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerasgen import limits
from kerasgen.corpora import conversations
from kerasgen.corpora.base import Document, Part
from kerasgen.corpora.streams import check_name
from kerasgen.errors import CorpusArgumentError


@dataclass(frozen=True)
class Fields:
    """Names of the fields of a record that hold its prompt and its answers.

    Args:
        prompt: holds what is only read; None where the answers stand by themselves.
        response: holds what is learned: the response, or the better answer of a pair.
        separator: stands between both, and is read with the prompt.
        rejected: holds the worse answer of a pair; None where there are no pairs.
    """

    prompt: str | None
    response: str
    separator: str
    rejected: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names, in order."""
        return tuple(name for name in (self.prompt, self.response, self.rejected) if name is not None)

    def holds_messages(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record's prompt or its answers are lists of messages, and not texts."""
        values = [record[name] for name in self.names if conversations.is_list(record.get(name))]
        return any(isinstance(each, Mapping) for value in values for each in value)

    def parsed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record of texts in which lists of messages are such, where a text is the JSON of one."""
        found = {name: messages for name in self.names if (messages := _messages(record[name])) is not None}
        tools = record.get(conversations.TOOLS)
        if found and isinstance(tools, str):
            return {**record, **found, conversations.TOOLS: limits.parse_json(tools) if tools.strip() else None}
        return {**record, **found}

    def conversation(self, record: Mapping[str, Any], *, id: str) -> Document:  # noqa: A002 - its name
        """Return the document of a record that holds messages: its prompt is read, what follows is learned.

        Args:
            record: holds lists of messages, or texts, under the names; and perhaps `tools`.
            id: the document's.

        Raises:
            ConversationError: they are no conversations, or no pair.
        """
        prompt = None if self.prompt is None else record[self.prompt]
        tools = record.get(conversations.TOOLS)
        others = {name: value for name, value in record.items() if name not in (*self.names, conversations.TOOLS)}
        if self.rejected is None:
            talk = conversations.answered(prompt, record[self.response], tools)
            return conversations.document(talk, id=id, metadata=others)
        talks = conversations.pair(prompt, record[self.response], record[self.rejected], tools)
        return conversations.pair_document(talks, id=id, metadata=others)

    def wrong_pair(self, record: Mapping[str, Any]) -> str | None:
        """Say what is wrong with a record's two answers, as a person may count it; None for nothing or no pair.

        Args:
            record: holds text under all names.
        """
        if self.rejected is None:
            return None
        for name in (self.response, self.rejected):
            if not record[name].strip():
                return f"empty {name!r}"
        if record[self.response] == record[self.rejected]:
            return f"{self.response!r} equal to {self.rejected!r}"
        return None

    def document(self, record: Mapping[str, Any], *, id: str) -> Document:  # noqa: A002 - its name
        """Return the document of a record, whose other fields become its metadata.

        Args:
            record: holds text under all names.
            id: the document's.
        """
        before = () if self.prompt is None else (Part(record[self.prompt] + self.separator, 0, "user"),)
        others = {name: value for name, value in record.items() if name not in self.names}
        rejected = () if self.rejected is None else (*before, Part(record[self.rejected], role="assistant"))
        chosen = (*before, Part(record[self.response], role="assistant"))
        return Document.of(chosen, id, others, rejected=rejected)


def _messages(text: str) -> list[Any] | None:
    """Return the list of messages that a text is the JSON of; None for another text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = limits.parse_json(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not value:
        return None
    return value if all(isinstance(each, dict) and {"role", "from"} & set(each) for each in value) else None


def fields(
    *,
    prompt: str | None,
    response: str | None,
    chosen: str | None,
    rejected: str | None,
    messages: str | None,
    separator: str,
    field: str,
    default: str,
) -> Fields | None:
    """Return the fields of a corpus's settings, or None where it has texts alone.

    Args:
        prompt: the setting of that name, as are the next six.
        response: as above.
        chosen: as above.
        rejected: as above.
        messages: as above; with it there are conversations alone.
        separator: as above.
        field: as above.
        default: of `field`, which says nothing where there are answers.

    Raises:
        CorpusArgumentError: one of two that belong together is missing, or a setting is wrong.
    """
    if not isinstance(separator, str):
        raise CorpusArgumentError(f"separator must be text. Received: {separator!r:.80}.")
    every = (("prompt", prompt), ("response", response), ("chosen", chosen), ("rejected", rejected))
    given = {name: value for name, value in every if value is not None}
    if messages is not None:
        check_name(messages, "messages")
        if given or field != default:
            others = ", ".join(given or {"field": field})
            raise CorpusArgumentError(
                f"messages={messages!r} names the field of conversations, which hold all that is read and learned. "
                f"Received besides: {others}. Leave it out."
            )
    if not given:
        return None
    for one, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if one in given and other not in given:
            raise CorpusArgumentError(
                f"A pair needs a chosen and a rejected answer. Received: {one} without {other}. Name the field that "
                f"holds the {other} one too."
            )
    if "chosen" in given and "response" in given:
        raise CorpusArgumentError(
            "The chosen answer is the response. Received: chosen and response. Leave out response."
        )
    if "chosen" not in given and ("prompt" not in given or "response" not in given):
        one, other = ("response", "prompt") if "prompt" not in given else ("prompt", "response")
        raise CorpusArgumentError(
            f"A prompt needs a response, and a response its prompt. Received: {one} without {other}. Name the field "
            f"that holds the {other} too, or those of pairs as chosen and rejected."
        )
    for name, value in given.items():
        check_name(value, name)
    twice = [name for name in given if list(given.values()).count(given[name]) > 1]
    if twice:
        several = f"{', '.join(twice[:-1])} and {twice[-1]}"
        raise CorpusArgumentError(f"{several} must be different fields. Received: {given[twice[0]]!r} for all of them.")
    if field != default:
        made = " and ".join(f"{name}={value!r}" for name, value in given.items())
        raise CorpusArgumentError(f"Texts are made of {made}. Leave out field={field!r}.")
    return Fields(prompt, given["chosen"] if "chosen" in given else given["response"], separator, rejected)


def fields_of(corpus: Any) -> Fields | None:
    """Return the fields of a corpus that has all of these settings under their names; see `fields`."""
    names = ("prompt", "response", "chosen", "rejected", "messages", "separator", "field")
    return fields(**{name: getattr(corpus, name) for name in names}, default="text")
