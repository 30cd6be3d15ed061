"""An acrostic (藏頭詩) as a constraint: the lines begin with given characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kerasgen.constraints.base import ByteAutomaton, Constraint, require
from kerasgen.constraints.verse_form import VerseForm


@dataclass(frozen=True)
class Acrostic(Constraint):
    """Verse whose lines begin with given characters.

    It is `VerseForm(form, acrostic=heads)`, with a form that has as many lines as there are characters.

    Args:
        heads: the first characters of the lines, or of the couplets.
        form: as for `VerseForm`; nothing for as many lines of seven characters.
        rhyme: as for `VerseForm`.
        tones: as for `VerseForm`.
        script: as for `VerseForm`.
    """

    heads: str
    form: str = ""
    rhyme: bool | str = False
    tones: bool = False
    script: Literal["simplified", "traditional"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.heads, str) and self.heads != "",
            "`heads` must be the first characters of the lines",
            f"heads={self.heads!r}",
        )
        require(isinstance(self.form, str), "`form` must be text", f"form={self.form!r}")
        require(
            self.form != "" or len(self.heads) % 2 == 0,
            "`heads` must be an even number of characters, one for each line, or come with a `form`",
            f"heads={self.heads!r} with {len(self.heads)}",
        )
        self.verse_form  # noqa: B018  checks the rest

    @property
    def verse_form(self) -> VerseForm:
        """The same as a form of verse."""
        settings: dict[str, Any] = {"rhyme": self.rhyme, "tones": self.tones, "script": self.script}
        form = self.form or f"{len(self.heads)}x7"
        return VerseForm(form, acrostic=self.heads, whole_text=self.whole_text, **settings)

    def automaton(self) -> ByteAutomaton:
        """Return the automaton of the form."""
        return self.verse_form.automaton()
