"""Lays out forms of verse as slots for the automaton: lines, their ends, tones, rhymes and first characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kerasgen.constraints.base import require
from kerasgen.constraints.verse_automaton import Slot, Unit
from kerasgen.prosody import regulated, tones, tunes

_PAUSE = "、"


@dataclass(frozen=True)
class Ends:
    """The punctuation of verse.

    Args:
        odd: what may end a line after which the sentence goes on.
        even: what may end a couplet, or a line of a tune that rhymes.
        between: what stands after a couplet, or after such a line, before the next.
    """

    odd: str
    even: str
    between: str


def of_lines(
    lines: int, length: int, ends: Ends, *, heads: str = "", rhyme: bool = False, tonal: bool = False
) -> list[list[Slot]]:
    """Return the layouts of verse whose lines are of one length; one for each tonal pattern, if tones are asked for.

    Args:
        lines: how many, an even number.
        length: characters of each.
        ends: the punctuation.
        heads: the first characters of the lines, or of the couplets.
        rhyme: whether the couplets rhyme.
        tonal: whether the tones are those of regulated verse.
    """
    layouts = []
    for types in regulated.poems(lines).values() if tonal else [""]:
        layout: list[Slot] = []
        for line in range(lines):
            rhyming = rhyme and (line % 2 == 1 or types[line : line + 1] in ("b", "d"))
            every = len(heads) == lines
            head = heads[line] if every else heads[line // 2] if heads and line % 2 == 0 else ""
            spelled = tuple(regulated.endings(types[line], length).items()) if types else ()
            layout += _line(length, head=head, rhyme="a" if rhyming else "", tones_=spelled)
            layout += _end(ends, closes=line % 2 == 1, last=line == lines - 1)
        layouts.append(layout)
    return layouts


def tune_forms(tune: tunes.Tune, *, heads: str = "", tonal: bool = False) -> list[tuple[tunes.TuneLine, ...]]:
    """Return the forms of a tune that can be kept.

    Args:
        tune: the tune.
        heads: the first characters of the lines; the form has as many lines, and the tones that it asks for are theirs.
        tonal: whether the tones are asked for, which are not known of each form.
    """
    known = tones.tones() if heads and tonal else {}
    return [
        form
        for form in tune.forms
        if (not tonal or form[0].tones)
        and (not heads or len(heads) == len(form))
        and all(
            line.tones[0] == "." or known.get(head, 0) & tunes.TONES[line.tones[0]]
            for head, line in zip(heads if tonal else "", form, strict=False)
        )
    ]


def of_tune(
    tune: tunes.Tune, ends: Ends, *, heads: str = "", rhyme: bool = False, tonal: bool = False
) -> list[list[Slot]]:
    """Return the layouts of a tune's forms; with `heads` or `tonal`, of those of `tune_forms`."""
    layouts = []
    for form in tune_forms(tune, heads=heads, tonal=tonal):
        layout: list[Slot] = []
        for number, line in enumerate(form):
            layout += _line(
                line.length,
                head=heads[number] if heads else "",
                rhyme=line.rhyme.lower() if rhyme else "",
                level=line.rhyme.isupper(),
                pauses=line.pauses,
                fixed=line.tones if tonal else "",
            )
            layout += _end(ends, closes=bool(line.rhyme), last=number == len(form) - 1)
        layouts.append(layout)
    return layouts


def _line(
    length: int,
    *,
    head: str,
    rhyme: str,
    level: bool = True,
    tones_: tuple[tuple[str, str], ...] = (),
    pauses: Sequence[int] = (),
    fixed: str = "",
) -> list[Slot]:
    slots = []
    for place in range(length):
        if place in pauses:
            slots.append(Slot(signs=_PAUSE, optional=True))
        slots.append(
            Slot(
                head=head if place == 0 else "",
                rhyme=rhyme if place == length - 1 else "",
                level=level,
                line=tones_ if place == 0 else (),
                tone=tunes.TONES[fixed[place]] if fixed and fixed[place] != "." else 0,
            )
        )
    return slots


def _end(ends: Ends, *, closes: bool, last: bool) -> list[Slot]:
    if last:
        return [Slot(signs=ends.even)]
    if closes:
        return [Slot(signs=ends.even), *(Slot(signs=sign) for sign in ends.between)]
    return [Slot(signs=ends.odd)]


def units_of_groups(groups: frozenset[str], level: bool) -> frozenset[Unit]:
    """Return the groups of a tone, by which regulated verse rhymes."""
    return frozenset(group for group in groups if tones.is_level(group) == level)


def units_of_parts(groups: frozenset[str], level: bool) -> frozenset[Unit]:
    """Return the parts of the rhyme book in which groups of a tone stand, by which lyrics rhyme."""
    return frozenset(tunes.parts_of_groups(groups, level=level))


def parts_of_both_tones() -> frozenset[Unit]:
    """Return the parts of the rhyme book that have groups of the level and of the oblique tones."""
    level, oblique = (units_of_parts(frozenset(tones.group_names()), tone) for tone in (True, False))
    return level & oblique


def given_rhyme(
    rhyme: str, units: Callable[[frozenset[str], bool], frozenset[Unit]], *, level: bool
) -> frozenset[Unit]:
    """Return what a rhyme that is given by a group's name, or by a character that has it, may be.

    Args:
        rhyme: such as `"上平聲一東"`, `"一東"`, `"東"`, or any character of the group.
        units: what groups of a tone rhyme by.
        level: the tone.

    Raises:
        ConstraintArgumentError: it names no group and no character of the tone.
    """
    written = rhyme.replace("声", "聲")
    of_tone = [group for group in tones.group_names() if tones.is_level(group) == level]
    named = [group for group in of_tone if written in (group, group.split("聲")[1], group[-1])]
    groups = frozenset(named) if named else tones.groups().get(rhyme, frozenset())
    found = units(groups, level)
    names = " ".join(group.split("聲")[1] for group in of_tone)
    require(
        bool(found),
        f"`rhyme` must be True, False, a rhyme group of the {'level' if level else 'oblique'} tones ({names}) or a "
        "character of one",
        f"rhyme={rhyme!r}",
    )
    return found
