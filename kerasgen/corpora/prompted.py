"""Makes documents of a prompt and its response: the prompt is read, and the response learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerasgen.corpora.base import Document, Part
from kerasgen.corpora.streams import check_name
from kerasgen.errors import CorpusArgumentError


@dataclass(frozen=True)
class Fields:
    """Names of the fields of a record that hold its prompt and its response.

    Args:
        prompt: holds what is only read.
        response: holds what is learned.
        separator: stands between both, and is read with the prompt.
    """

    prompt: str
    response: str
    separator: str

    def document(self, record: Mapping[str, Any], *, id: str) -> Document:  # noqa: A002 - its name
        """Return the document of a record, whose other fields become its metadata.

        Args:
            record: holds text under both names.
            id: the document's.
        """
        prompt = Part(record[self.prompt] + self.separator, 0, "user")
        others = {name: value for name, value in record.items() if name not in (self.prompt, self.response)}
        return Document.of((prompt, Part(record[self.response], role="assistant")), id, others)


def fields(*, prompt: str | None, response: str | None, separator: str, field: str, default: str) -> Fields | None:
    """Return the fields of a corpus's settings, or None where it has texts alone.

    Args:
        prompt: the setting of that name, as are the next three.
        response: as above.
        separator: as above.
        field: as above.
        default: of `field`, which says nothing where there are prompts.

    Raises:
        CorpusArgumentError: one of both is missing, or a setting is wrong.
    """
    if not isinstance(separator, str):
        raise CorpusArgumentError(f"separator must be text. Received: {separator!r:.80}.")
    if prompt is None and response is None:
        return None
    if prompt is None or response is None:
        given, other = ("response", "prompt") if prompt is None else ("prompt", "response")
        raise CorpusArgumentError(
            f"A prompt needs a response, and a response its prompt. Received: {given} without {other}. Name the field "
            f"that holds the {other} too."
        )
    check_name(prompt, "prompt")
    check_name(response, "response")
    if prompt == response:
        raise CorpusArgumentError(f"prompt and response must be two fields. Received: {prompt!r} for both.")
    if field != default:
        raise CorpusArgumentError(
            f"Texts are made of prompt={prompt!r} and response={response!r}. Leave out field={field!r}."
        )
    return Fields(prompt, response, separator)
