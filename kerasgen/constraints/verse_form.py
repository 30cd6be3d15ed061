"""A form of Chinese verse as a constraint: how many lines, how many characters in each, what ends them, which rhyme."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

from kerasgen.constraints import rhymes, script_tables
from kerasgen.constraints.base import CharacterAutomaton, Constraint, State, ranges, require
from kerasgen.constraints.script_tables import HAN
from kerasgen.keywords import near

FORMS: dict[str, tuple[int, int]] = {
    name: (lines, characters)
    for characters, numeral in ((5, "五"), (7, "七"))
    for lines, kinds in ((4, ("言絕句", "言绝句", "絕", "绝")), (8, ("言律詩", "言律诗", "律")))
    for name in (numeral + kind for kind in kinds)
}
"""Lines and characters a line of each form by its names, in traditional and in simplified characters."""

_COUNTED = re.compile(r"([0-9]{1,3})[x×]([0-9]{1,3})")

_Place: TypeAlias = tuple[int, int, frozenset[str] | None]
"""Line, place in it (a line's characters and then its end), and the rhymes that are still possible."""


@dataclass(frozen=True)
class VerseForm(Constraint):
    r"""Verse of so many lines with so many characters, each line with its punctuation.

    Args:
        form: `"五言絕句"`, `"七言絕句"`, `"五言律詩"`, `"七言律詩"`, the same in simplified characters, or short as
            `"七絕"`; or lines and characters a line, as `"6x5"`, with an even number of lines.
        odd_ends: the punctuation that may end a couplet's first line, one character each.
        even_ends: the punctuation that may end a couplet.
        between: what stands between couplets; `"\n"` is how the built-in corpora and the starter write verse.
        rhyme: let the couplets' last characters rhyme: all of one group of the 平水韻 in a level tone. Needs the
            extra `rhyme`. A character that the table does not hold can't stand there. Which line of tones (平仄) goes
            with it, and that no rhyme is used twice, is not asked for.
        script: `"simplified"` or `"traditional"` leaves out the characters that belong to the other one alone, as
            `Script` does; None lets them mix. Needs the extra `opencc`.
    """

    form: str
    odd_ends: str = "，？！"
    even_ends: str = "。？！"
    between: str = "\n"
    rhyme: bool = False
    script: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = _shape(self.form) if isinstance(self.form, str) else None
        close = near(str(self.form), FORMS) if shape is None else []
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        require(
            shape is not None,
            f"`form` must be one of {', '.join(FORMS)}{hint}, or lines and characters a line, such as 6x5",
            f"form={self.form!r}",
        )
        lines, characters = cast(tuple[int, int], shape)
        require(
            lines % 2 == 0 and 2 <= lines <= 100 and 1 <= characters <= 100,
            "A form has an even number of lines, and at most 100 of them and of characters in each",
            f"form={self.form!r}",
        )
        for name, ends in (("odd_ends", self.odd_ends), ("even_ends", self.even_ends)):
            require(
                isinstance(ends, str) and ends != "" and not any(map(_is_han, ends)) and _is_text(ends),
                f"`{name}` must be punctuation, at least one character, and none that could be a line's",
                f"{name}={ends!r}",
            )
        require(
            isinstance(self.between, str) and not any(map(_is_han, self.between)) and _is_text(self.between),
            "`between` must be text without Han characters, such as a line break or nothing",
            f"between={self.between!r}",
        )
        require(isinstance(self.rhyme, bool), "`rhyme` must be True or False", f"rhyme={self.rhyme!r}")
        require(
            self.script is None or self.script in script_tables.NAMES,
            f"`script` must be one of {', '.join(script_tables.NAMES)}, or None",
            f"script={self.script!r}",
        )
        if self.rhyme:
            rhymes.require_table()
        if self.script is not None:
            script_tables.foreign(self.script)

    @property
    def shape(self) -> tuple[int, int]:
        """How many lines, and how many characters in each."""
        return cast(tuple[int, int], _shape(self.form))

    def automaton(self) -> CharacterAutomaton:
        """Return the automaton over characters."""
        return _Verse(self, rhymes.level_groups() if self.rhyme else None)


class _Verse(CharacterAutomaton):
    """Where a poem of this form stands: line, place in the line, rhymes that are left."""

    def __init__(self, form: VerseForm, groups: Mapping[str, frozenset[str]] | None) -> None:
        self._lines, self._characters = form.shape
        self._odd, self._even, self._between = form.odd_ends, form.even_ends, form.between
        self._groups = groups
        foreign = frozenset() if form.script is None else script_tables.foreign(form.script)
        self._han = HAN if form.script is None else script_tables.without(HAN, form.script)
        # Characters by the groups they may belong to.
        self._by_groups: dict[frozenset[str], list[str]] = {}
        for character, of_it in (groups or {}).items():
            if character not in foreign:
                self._by_groups.setdefault(of_it, []).append(character)

    @property
    def first(self) -> _Place:
        return (0, 0, None)

    def arcs(self, state: State) -> Iterable[tuple[int, int, State]]:
        line, place, left = cast(_Place, state)
        rhymes_here = self._groups is not None and line % 2 == 1
        if place < self._characters:
            after = (line, place + 1, left)
            if rhymes_here and place == self._characters - 1:
                yield from self._rhyming(line, left)
            else:
                yield from ((first, last, after) for first, last in self._han)
        elif line < self._lines:
            even = line % 2 == 1
            more = line + 1 < self._lines
            if not more:
                after = (self._lines, self._characters, None)
            elif even and self._between:
                after = (line, place + 1, left)
            else:
                after = (line + 1, 0, left)
            ends = self._even if even else self._odd
            if place == self._characters:
                yield from ((first, last, after) for first, last in ranges(ends))
            else:
                done = place - self._characters  # characters of `between`, the one that comes now with them
                code = ord(self._between[done - 1])
                yield code, code, (line, place + 1, left) if done < len(self._between) else (line + 1, 0, left)

    def ends(self, state: State) -> bool:
        return cast(_Place, state)[0] == self._lines

    def likeness_of(self, state: State) -> State:
        return cast(_Place, state)[:2]  # whichever rhyme is left, as many characters are to come

    def _rhyming(self, line: int, left: frozenset[str] | None) -> Iterator[tuple[int, int, State]]:
        for groups, characters in self._by_groups.items():
            common = groups if left is None else groups & left
            if common:
                after = (line, self._characters, common)
                yield from ((first, last, after) for first, last in ranges(characters))


def _shape(form: str) -> tuple[int, int] | None:
    counted = _COUNTED.fullmatch(form)
    return (int(counted[1]), int(counted[2])) if counted else FORMS.get(form)


def _is_han(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in HAN)


def _is_text(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text
