"""A corpus that is always there: short texts that come with the package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError, CorpusUnavailableError

_FILES = {"zh": ("quatrains.jsonl",), "en": ("anecdotes.jsonl",), "all": ("quatrains.jsonl", "anecdotes.jsonl")}


@dataclass(frozen=True)
class Sample(CorpusSource):
    """A few hundred short texts written for this package: Chinese quatrains and English anecdotes.

    The quatrains keep a classical form and take their themes from the present day. They come before the anecdotes.
    A document's metadata are `title` and `theme`, and a quatrain's `form`.

    Args:
        language: "zh" for the quatrains, "en" for the anecdotes, or "all".

    Raises:
        CorpusArgumentError: `language` is none of these.
    """

    language: Literal["all", "zh", "en"] = "all"

    def __post_init__(self) -> None:
        if self.language not in tuple(_FILES):
            raise CorpusArgumentError(f"language must be one of {', '.join(_FILES)}. Received: {self.language!r}.")

    def about(self) -> Mapping[str, Any]:
        """Return whose texts they are."""
        languages = ["zh", "en"] if self.language == "all" else [self.language]
        return {"name": "the sample corpus of kerasgen", "license": "apache-2.0", "languages": languages}

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the texts in the order in which the package holds them.

        Args:
            tally: filled while the documents are drawn, if given.

        Raises:
            CorpusUnavailableError: the installed package lacks its data.
        """
        tally = CorpusTally() if tally is None else tally
        for name in _FILES[self.language]:
            resource = files("kerasgen.corpora").joinpath("data", name)
            if not resource.is_file():
                raise CorpusUnavailableError(
                    f"The package kerasgen lacks its file {name!r} (in {str(resource)!r}). Install it again.",
                    path=str(resource),
                )
            with resource.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    record = json.loads(line)
                    text = record.pop("text")
                    yield tally.keep(Document(text=text, id=f"{name}:{number}", metadata=record))
