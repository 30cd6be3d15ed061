"""The answering line of a couplet (對聯) as a constraint: as long as the first, with mirrored tones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kerasgen.constraints import script_tables, verse_layouts
from kerasgen.constraints.base import ByteAutomaton, Constraint, require
from kerasgen.constraints.script_tables import HAN
from kerasgen.constraints.verse_automaton import Slot, Unit, VerseAutomaton
from kerasgen.prosody import tones

_SIGNS = "，、；：？！。"
_MOST = 60  # characters of a line


@dataclass(frozen=True)
class Couplet(Constraint):
    """A couplet whose first line is given and whose second line answers it.

    The answer has as many characters, with the same punctuation inside, and none of the first line's. Its second,
    fourth, sixth … characters have the opposite tones, and so has its last, which is level: the first line ends in an
    oblique tone. Where the table knows a character in both tones, or not at all, either tone answers it.

    The text is the first line, `middle`, the answer and `end`; a prompt may hold as much of it as one likes, and
    what it lacks of the first line is written too.

    Args:
        first: the first line, without what ends it.
        middle: what stands between the lines.
        end: what ends the couplet; may be nothing.
        tones: whether the tones answer; without it only length, punctuation and characters do.
        script: as for `VerseForm`. The first line must be in it too.
        rhyme: a rhyme group of the level tones, or a character of one, in which the answer ends; nothing for any. Needs
            the extra `rhyme`.
    """

    first: str
    middle: str = "，"
    end: str = "。"
    tones: bool = True
    script: Literal["simplified", "traditional"] | None = None
    rhyme: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        received = f"first={self.first!r}"
        require(
            isinstance(self.first, str) and any(map(_is_han, self.first)) and len(self.first) <= _MOST,
            f"`first` must be a line of Han characters, at most {_MOST}",
            received,
        )
        strange = [sign for sign in self.first if not _is_han(sign) and sign not in _SIGNS]
        require(
            not strange and _is_han(self.first[-1]) and _is_han(self.first[0]),
            f"`first` must be Han characters, with {_SIGNS} between them; what ends the line is `middle`",
            received,
        )
        for name in ("middle", "end"):
            value = getattr(self, name)
            require(
                isinstance(value, str) and not any(map(_is_han, value)) and value.isprintable() | (value == "\n"),
                f"`{name}` must be punctuation, or nothing",
                f"{name}={value!r}",
            )
        require(isinstance(self.tones, bool), "`tones` must be True or False", f"tones={self.tones!r}")
        require(
            self.script is None or self.script in script_tables.NAMES,
            f"`script` must be one of {', '.join(script_tables.NAMES)}, or None",
            f"script={self.script!r}",
        )
        require(
            isinstance(self.rhyme, str), "`rhyme` must be a rhyme group, or a character of one", f"rhyme={self.rhyme!r}"
        )
        self._given()
        if self.script is not None:
            foreign = [one for one in self.first if one in script_tables.foreign(self.script)]
            require(
                not foreign,
                f"`first` must be in {self.script} characters, and {'、'.join(foreign)} are not",
                received,
            )
        if self.tones:
            (last,) = tones.tones_of(self.first[-1])
            require(
                bool(last & tones.OBLIQUE),
                "The first line of a couplet ends in an oblique tone (仄), so that the answer can end in a level one. "
                "Give the lines in their order, or pass tones=False",
                received,
            )

    def automaton(self) -> ByteAutomaton:
        """Return the automaton over characters."""
        slots = [Slot(tone=tone) if tone is not None else Slot(signs=sign) for sign, tone in self._answer()]
        slots += [Slot(signs=sign) for sign in self.end]
        slots = [*(Slot(signs=sign) for sign in self.first + self.middle), *slots]
        own = frozenset(filter(_is_han, self.first))
        if self.rhyme:
            slots[-1 - len(self.end)] = replace(slots[-1 - len(self.end)], rhyme="a")
        return VerseAutomaton(
            [slots], script=self.script, units=verse_layouts.units_of_groups, rhymes=self._given(), without=own
        )

    def _given(self) -> dict[str, frozenset[Unit]]:
        """Return what the answer's rhyme may be, if it is given."""
        if not self.rhyme:
            return {}
        tones.require_table()
        return {"a": verse_layouts.given_rhyme(self.rhyme, verse_layouts.units_of_groups, level=True)}

    def _answer(self) -> list[tuple[str, int | None]]:
        """Return for each place of the answer its sign, or the tones that it may have: 0 for any character."""
        found: list[tuple[str, int | None]] = []
        place = 0
        clauses = self.first
        for number, character in enumerate(clauses):
            if not _is_han(character):
                found.append((character, None))
                place = 0
                continue
            ends = number + 1 == len(clauses) or not _is_han(clauses[number + 1])
            if not self.tones:
                tone = 0
            elif number + 1 == len(clauses):
                tone = tones.LEVEL
            elif place % 2 == 1 or ends:
                (heard,) = tones.tones_of(character)
                tone = tones.EITHER if heard == tones.EITHER else tones.EITHER - heard
            else:
                tone = tones.EITHER
            found.append(("", tone))
            place += 1
        return found


def _is_han(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in HAN)
