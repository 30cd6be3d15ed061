"""The forms of tunes (詞牌) to which lyrics of the Song were written: lengths of lines and where they rhyme.

The table is derived from the lyrics themselves by `tools/tunes.py`. A form is spelled line by line: `7A` is a line of
seven characters that rhymes in a level tone, `7a` one that rhymes in an oblique tone, `7` one that does not rhyme, and
`3-4A` one in which a pause (、) may stand after the third character. Lines with the same letter rhyme together, also
across tones: `A` and `a` stand in the same part of the rhyme book.

The tones of a form are spelled line by line, too: `.Z.PPZZ` has a level tone (平) at `P`, an oblique tone (仄) at `Z`
and either at `.`. A place has a tone where 93 % of the form's lyrics have it. Forms of fewer than 15 lyrics have none.

Lyrics rhyme by the 19 parts of 戈載, 詞林正韻 (1821), each of several of the 106 groups.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from kerasgen.prosody import tones

# The groups of each part by their last characters; a group in two parts is divided between them, and either will do.
_PARTS: Final = (
    "東冬董腫送宋",
    "江陽講養絳漾",
    "支微齊灰紙尾薺賄寘未霽泰隊",
    "魚虞語麌御遇",
    "佳灰蟹賄泰卦隊",
    "真文元軫吻阮震問願",
    "寒刪先元旱潸銑阮翰諫霰願",
    "蕭肴豪篠巧皓嘯效號",
    "歌哿箇",
    "佳麻馬卦禡",
    "庚青蒸梗迥敬徑",
    "尤有宥",
    "侵寢沁",
    "覃鹽咸感琰豏勘豔陷",
    "屋沃",
    "覺藥",
    "質陌錫職緝",
    "物月曷黠屑葉",
    "合洽",
)
TONES: Final = {"P": tones.LEVEL, "Z": tones.OBLIQUE, ".": tones.EITHER}
"""The tones that a character may have where one stands in a spelled line."""

_SPELLED = re.compile(r"(\d+(?:-\d+)*)([A-Za-z]?)")


@dataclass(frozen=True)
class TuneLine:
    """A line of a tune.

    Args:
        length: characters.
        rhyme: the letter of the rhyme, upper case for a level tone, or nothing.
        pauses: after how many characters a pause may stand.
        tones: `P`, `Z` or `.` for each character; nothing where they are not known.
    """

    length: int
    rhyme: str = ""
    pauses: tuple[int, ...] = ()
    tones: str = ""


@dataclass(frozen=True)
class Tune:
    """A tune with its forms.

    Args:
        name: in simplified characters.
        names: it and its other names, in both scripts.
        poems: how many lyrics its forms were derived from.
        forms: the lines of each form, the most frequent first.
        shares: which share of those lyrics each form has.
    """

    name: str
    names: tuple[str, ...]
    poems: int
    forms: tuple[tuple[TuneLine, ...], ...]
    shares: tuple[float, ...]


def holds_tones(lines: Sequence[str], form: Sequence[TuneLine]) -> bool:
    """Return whether each character of a lyric's lines may have the tone that the form has at its place.

    A character that the table lacks, or that has both tones, holds any.

    Args:
        lines: without punctuation and pauses, as long as those of the form.
        form: the lines of a form whose tones are known.

    Raises:
        ValueError: the lines are of other lengths.
    """
    if [len(line) for line in lines] != [line.length for line in form]:
        raise ValueError(f"The form has lines of {[line.length for line in form]} characters. Received: {lines!r}.")
    return all(
        bool(heard & TONES[spelled])
        for line, own in zip(lines, form, strict=True)
        for heard, spelled in zip(tones.tones_of(line), own.tones, strict=True)
    )


@functools.cache
def tunes() -> Mapping[str, Tune]:
    """Return the tunes by their names in simplified characters, the most frequent first."""
    table = resources.files("kerasgen.prosody").joinpath("data/tunes.json").read_text(encoding="utf-8")
    return {name: _tune(name, entry) for name, entry in json.loads(table).items()}


@functools.cache
def tunes_by_name() -> Mapping[str, Tune]:
    """Return the tunes by all of their names in both scripts; a tune's own name comes before another's."""
    found = {name: tune for tune in tunes().values() for name in reversed(tune.names)}
    return found | dict(tunes())


@functools.cache
def parts_by_group() -> Mapping[str, frozenset[int]]:
    """Return the parts of the rhyme book, 1 to 19, that each of the 106 groups belongs to."""
    return {
        group: frozenset(number for number, groups in enumerate(_PARTS, start=1) if group[-1] in groups)
        for group in tones.group_names()
    }


def parts_of(character: str, *, level: bool) -> frozenset[int]:
    """Return the parts of the rhyme book in which a character stands with a level, or with an oblique tone."""
    return parts_of_groups(tones.groups().get(character, frozenset()), level=level)


def parts_of_groups(groups: frozenset[str], *, level: bool) -> frozenset[int]:
    """Return the parts of the rhyme book of those of the groups that have the tone."""
    parts = parts_by_group()
    return frozenset(part for group in groups if tones.is_level(group) == level for part in parts[group])


def parse(spelled: str, spelled_tones: str = "") -> tuple[TuneLine, ...]:
    """Return the lines of a spelled form.

    Args:
        spelled: the lengths and rhymes.
        spelled_tones: the tones, or nothing.

    Raises:
        ValueError: it is not spelled so.
    """
    lines = spelled.split()
    of_lines = spelled_tones.split() or [""] * len(lines)
    return tuple(_line(line, of_line) for line, of_line in zip(lines, of_lines, strict=True))


def _line(spelled: str, spelled_tones: str) -> TuneLine:
    match = _SPELLED.fullmatch(spelled)
    if match is None:
        raise ValueError(f"A line of a tune is spelled as 7, 7A, 7a or 3-4A. Received: {spelled!r}.")
    pieces = [int(piece) for piece in match[1].split("-")]
    pauses = tuple(sum(pieces[:count]) for count in range(1, len(pieces)))
    if len(spelled_tones) not in (0, sum(pieces)):
        raise ValueError(f"A line of {sum(pieces)} characters has as many tones. Received: {spelled_tones!r}.")
    return TuneLine(sum(pieces), match[2], pauses, spelled_tones)


def _tune(name: str, entry: Mapping[str, Any]) -> Tune:
    return Tune(
        name=name,
        names=tuple(entry["names"]),
        poems=entry["poems"],
        forms=tuple(parse(form, entry["tones"].get(form, "")) for form in entry["forms"]),
        shares=tuple(entry["forms"].values()),
    )
