"""The corpus contract: a source yields documents, lazily, and the same ones each time."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from numbers import Real
from typing import Any, ClassVar

from kerasgen.errors import CorpusArgumentError
from kerasgen.keywords import Checked

# The least weight above 0 and the greatest that a float32 holds with all its digits.
_LEAST_WEIGHT, _MOST_WEIGHT = 2.0**-126, (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True)
class Part:
    """A stretch of a document's text that is learned as a whole, or only read.

    Args:
        text: the stretch; it may be empty.
        weight: how much each of its tokens counts in the loss, which a float32 can hold; 0 for a part that is only
            read.
        role: who speaks in a conversation: `"system"`, `"user"`, `"assistant"`, `"tool"` or another name of a template;
            None where it is none. Where a document is longer than a row, it is cut before a part of `"user"`, and its
            first parts of `"system"` stay.

    Raises:
        CorpusArgumentError: a value is of another type, or `weight` is negative, or NaN, infinite, or above 0 and too
            small for a float32.
    """

    text: str
    weight: float = 1.0
    role: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("text", (str,)), ("role", (str, type(None)))):
            if not isinstance(getattr(self, name), kinds):
                raise CorpusArgumentError(f"A part's `{name}` must be text. Received: {getattr(self, name)!r:.80}.")
        object.__setattr__(self, "weight", _weight(self.weight))


def _read_first(parts: Iterable[Part]) -> str:
    """Return the text before the first part that is learned."""
    return "".join(part.text for part in takewhile(lambda part: not part.weight, parts))


def _weight(value: Any) -> float:
    """Return a part's weight as a number of Python's."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)  # NumPy's numbers too
    try:
        weight = value if type(value) is int else float(value) if is_number else math.nan
        fits = weight == 0 or _LEAST_WEIGHT <= weight <= _MOST_WEIGHT
    except (OverflowError, ValueError):
        fits = False
    if not fits:
        raise CorpusArgumentError(
            "A part's `weight` must be 0, for what is only read, or a positive number that a float32 holds, from "
            f"{_LEAST_WEIGHT:.3g} to {_MOST_WEIGHT:.3g}. Received: {_shown(value)}."
        )
    return weight


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # an integer of more digits than Python writes
        return "an integer of thousands of digits"


@dataclass(frozen=True)
class Conversation:
    """A conversation as a chat template takes it.

    Args:
        messages: what was said, in order; each has a `role` and a `content`, and perhaps `tool_calls` and others.
        tools: JSON schemas of the tools that the assistant may call, or None.
        read: how many of the first messages are a prompt, of which answers are only read too.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Any, ...] | None = None
    read: int = 0

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """Return it as JSON; what JSON can't hold is written as Python shows it."""
        held = [self.messages, self.tools, *([self.read] if self.read else [])]
        return json.dumps(held, ensure_ascii=False, sort_keys=True, default=repr)

    def weights(self) -> list[float]:
        """Return how much the tokens of each message count; 0 for one that is only read."""
        return [
            message.get("weight", 1.0) if message["role"] == "assistant" and place >= self.read else 0
            for place, message in enumerate(self.messages)
        ]


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Args:
        text: the text itself; not empty.
        id: names the document within its corpus, the same each time.
        metadata: whatever else the source knows (title, author, …), as JSON could hold it.
        parts: the stretches of the text, in order, where not all of it is learned; empty where all of it is. A token on
            an edge belongs to the part in which it ends, and the end token to the last one.
        rejected: the parts of a worse text behind the same prompt, that prompt among them; empty where there is none.
            Tuners of preferences learn to prefer the document's own text.
        conversation: the messages, where the document is a conversation; its text is what they say. What a model reads
            of it, the model's chat template writes; see `Pipeline`.
        rejected_conversation: the messages of the worse text, where the document is a conversation; None where it has
            none.

    Raises:
        CorpusArgumentError: the parts are not the text, or a value is of another type, or the worse text is no other,
            has nothing that is learned, or stands behind another prompt.
    """

    text: str
    id: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parts: tuple[Part, ...] = ()
    rejected: tuple[Part, ...] = ()
    conversation: Conversation | None = field(default=None, repr=False)
    rejected_conversation: Conversation | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("text", "id"):
            if not isinstance(getattr(self, name), str):
                raise CorpusArgumentError(
                    f"A document's `{name}` must be text. Received: {getattr(self, name)!r:.80} "
                    f"({type(getattr(self, name)).__name__})."
                )
        if self.parts and "".join(part.text for part in self.parts) != self.text:
            raise CorpusArgumentError(
                f"The parts of the document {self.id!r} are not its text when they are joined. Write "
                "Document.of(parts, id)."
            )
        if self.rejected:
            if self.rejected_text == self.text and self.rejected_conversation == self.conversation:
                raise CorpusArgumentError(
                    f"The rejected text of the document {self.id!r} is its text. A pair needs two texts."
                )
            if not any(part.text and part.weight for part in self.rejected):
                raise CorpusArgumentError(
                    f"The rejected text of the document {self.id!r} has no part that is learned. Give its answer a "
                    "weight."
                )
            self._check_prompts()

    def _check_prompts(self) -> None:
        if (self.conversation is None) != (self.rejected_conversation is None):
            raise CorpusArgumentError(
                f"Of the document {self.id!r} one text is a conversation and the other is none. Give conversations for "
                "both."
            )
        prompt, other = _read_first(self.parts), _read_first(self.rejected)
        if self.conversation is None and prompt != other:
            raise CorpusArgumentError(
                f"The rejected text of the document {self.id!r} stands behind another prompt. A pair is two answers to "
                f"one prompt, which is the first part of both. Received: {prompt!r:.60} and {other!r:.60}."
            )

    @property
    def rejected_text(self) -> str:
        """The worse text, prompt included; empty where there is none."""
        return "".join(part.text for part in self.rejected)

    @classmethod
    def of(
        cls,
        parts: Iterable[Part],
        id: str,  # noqa: A002 - its name
        metadata: Mapping[str, Any] | None = None,
        *,
        rejected: Iterable[Part] = (),
    ) -> Document:
        """Return the document of parts, whose text they are together.

        Args:
            parts: in order.
            id: as in the class, as is the next.
            metadata: the other knowledge; none by default.
            rejected: as in the class.

        Raises:
            CorpusArgumentError: `parts` are no parts, or their text is empty.
        """
        given = tuple(parts) if isinstance(parts, Iterable) else (parts,)
        wrong: list[Any] = [each for each in given if not isinstance(each, Part)]
        if isinstance(parts, (str, Part)) or wrong:
            shown = parts if isinstance(parts, (str, Part)) else wrong[0]
            raise CorpusArgumentError(
                "A document is made of kerasgen.Part values. Received: "
                f"{shown!r:.80} ({type(shown).__name__}). Write Document.of([Part(prompt, 0), Part(response)], id)."
            )
        if not any(part.text for part in given):
            raise CorpusArgumentError(f"The document {id!r} is empty: none of its {len(given)} parts holds text.")
        return cls("".join(part.text for part in given), id, metadata or {}, given, tuple(rejected))


@dataclass
class CorpusTally:
    """Counts of the documents that were read, kept and dropped; filled while they are drawn.

    Args:
        read: documents found, kept or not.
        kept: documents yielded.
        characters: characters yielded (Unicode code points).
        dropped: how many documents were not yielded, by reason.
        changed: how many documents were yielded in another form than they were found, by reason.
    """

    read: int = 0
    kept: int = 0
    characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def keep(self, document: Document) -> Document:
        """Count a document as read and kept, and return it."""
        self.read += 1
        self.kept += 1
        self.characters += len(document.text)
        return document

    def drop(self, reason: str) -> None:
        """Count a document as read and dropped."""
        self.read += 1
        self.dropped[reason] += 1

    def reject(self, document: Document, reason: str) -> None:
        """Move a document from the kept to the dropped ones; a corpus that filters another corpus calls this."""
        self.kept -= 1
        self.characters -= len(document.text)
        self.dropped[reason] += 1

    def change(self, reason: str) -> None:
        """Count a change to the document that is being read."""
        self.changed[reason] += 1

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON can hold them."""
        return {
            "read": self.read,
            "kept": self.kept,
            "characters": self.characters,
            "dropped": dict(self.dropped),
            "changed": dict(self.changed),
        }


class CorpusSource(metaclass=Checked):
    """A source of texts. Subclasses are frozen dataclasses whose construction reads nothing.

    A subclass checks its settings in `__post_init__` (raising `CorpusArgumentError`) and does all input and output
    in `documents`.
    """

    contract_version: ClassVar[int]  # a plugin declares it, see kerasgen.plugins.contract_versions
    _argument_error = CorpusArgumentError

    def check(self) -> None:
        """Raise unless what the corpus reads is there, before any heavy work; by default, check nothing.

        Raises:
            CorpusUnavailableError: it is not.
        """

    def fingerprint(self) -> str | None:
        """Return text that changes whenever the documents or their counts would; by default None.

        What documents a source with a fingerprint yields is kept in the cache, and not read again by later runs. It is
        worth having where making documents takes longer than reading the bytes that decide them. None where it can't be
        known without reading all of them.
        """
        return None

    def about(self) -> Mapping[str, Any]:
        """Return what is known of the corpus itself, for a model card; by default nothing.

        Of these names: `name`, in words; `license` and `url`; `languages`, codes of ISO 639; and `dataset`, its name on
        the Hugging Face hub.
        """
        return {}

    @abstractmethod
    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents, lazily, the same ones in the same order at each call.

        Args:
            tally: filled while the documents are drawn, if given: each document that is read is counted as kept or
                as dropped with its reason.

        Raises:
            CorpusFormatError: a file is malformed; says which, and the byte or line.
            CorpusUnavailableError: the data are not here and can't be fetched; says what to do.
        """

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents, as `documents` does. How many there are, only reading all of them tells."""
        return self.documents()
