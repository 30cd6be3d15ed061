"""Haiku to documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kerasgen.corpora import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError

_HAIKU = {
    "summer": ("the fan turns its head\nfrom one sleeper to the next\nand finds no one cool",),
    "winter": (
        "snow on the ladder\nthat leans where the apple tree\nstood until last year",
        "the kettle gives up\nits small cloud to the window\nand the street is gone",
    ),
}


@dataclass(frozen=True)
class Haiku(CorpusSource):
    """Haiku of a season.

    Args:
        season: "summer", "winter" or "any".
        shout: whether in capital letters.
    """

    season: Literal["any", "summer", "winter"] = "any"
    shout: bool = False

    def __post_init__(self) -> None:
        if self.season not in ("any", *_HAIKU):
            raise CorpusArgumentError(f"season must be any, summer or winter. Received: {self.season!r}.")

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the haiku, summer before winter."""
        tally = CorpusTally() if tally is None else tally
        for season in _HAIKU if self.season == "any" else (self.season,):
            for number, text in enumerate(_HAIKU[season]):
                yield tally.keep(Document(text=text.upper() if self.shout else text, id=f"{season}:{number}"))
