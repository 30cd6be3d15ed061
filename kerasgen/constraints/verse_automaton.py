"""The automaton of verse: lines of given lengths with their ends, tones, rhymes and first characters.

A layout is a row of slots, one for each character. A state is a set of the places in the layouts where a text may be:
several forms of a tune, several tonal patterns and a character of two tones are followed at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

from kerasgen.constraints import script_tables
from kerasgen.constraints.base import State
from kerasgen.constraints.character_classes import ClassAutomaton, ClassTree
from kerasgen.constraints.script_tables import HAN
from kerasgen.prosody import tones
from kerasgen.prosody.regulated import RESCUED

Unit: TypeAlias = "str | int"
"""What lines may rhyme by: one of the 106 groups, or a part of the rhyme book of lyrics."""

Left: TypeAlias = "tuple[tuple[str, bool], ...]"
"""Tones that may follow in a line, each with whether the line then needs a rescue by the next."""


@dataclass(frozen=True)
class Slot:
    """Where one character stands.

    Args:
        signs: the signs that may stand here; empty for a character of a line.
        optional: whether the sign may be left out.
        head: the only character that may stand here, or any.
        rhyme: the letter of the rhyme that ends here.
        level: whether the rhyme's tone is level.
        line: at the first character of a line with tones: the tones that it may have, with what is odd in them.
        tone: the tones of which the character must have one.
    """

    signs: str = ""
    optional: bool = False
    head: str = ""
    rhyme: str = ""
    level: bool = True
    line: tuple[tuple[str, str], ...] = ()
    tone: int = 0

    @property
    def is_judged(self) -> bool:
        """Whether tones or rhymes are asked for, so that a character must be in their table."""
        return bool(self.line or self.tone or self.rhyme)


class Place(NamedTuple):
    """A place where a text may be.

    Args:
        layout: the number of the layout.
        slot: the slot that comes next.
        left: the tones that may follow in this line.
        rescue: whether the next line must rescue this one.
        rhymes: what each rhyme that has begun may still be.
    """

    layout: int
    slot: int
    left: Left = ()
    rescue: bool = False
    rhymes: tuple[tuple[str, frozenset[Unit]], ...] = ()


class _Class(NamedTuple):
    sign: str  # the character if it stands alone in its class: a sign or a head
    is_han: bool
    tone: int  # 0: not in the table
    groups: frozenset[str]


class VerseAutomaton(ClassAutomaton):
    """Texts of any of the layouts.

    Args:
        layouts: the slots of each.
        script: leave out the characters that the other script alone has, or None.
        units: what characters of such groups rhyme by; called with the groups and whether the tone is level.
        rhymes: the rhymes that are given: for letters, what they may be.
        without: characters that may not stand in a line.
    """

    def __init__(
        self,
        layouts: Sequence[Sequence[Slot]],
        *,
        script: str | None = None,
        units: Callable[[frozenset[str], bool], frozenset[Unit]] | None = None,
        rhymes: Mapping[str, frozenset[Unit]] | None = None,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self._layouts = [tuple(layout) for layout in layouts]
        slots = [slot for layout in self._layouts for slot in layout]
        alone = frozenset("".join(slot.signs + slot.head for slot in slots))
        judged = any(slot.is_judged for slot in slots)
        grouped = any(slot.rhyme for slot in slots)
        coarse, self._coarse = _divided(script, alone, judged, False, without)
        trees = [coarse]
        self._fine = self._coarse
        if grouped:
            fine, self._fine = _divided(script, alone, judged, True, without)
            trees.append(fine)
        super().__init__(trees)
        self._without = without
        self._units_of = functools.lru_cache(maxsize=None)(units or (lambda groups, level: frozenset()))
        begun = [self._begun(layout, rhymes or {}) for layout in self._layouts]
        self._start = frozenset(
            place
            for number, letters in enumerate(begun)
            if all(letters.values())
            for place in self._closed(Place(number, 0, rhymes=tuple(sorted(letters.items()))))
        )
        self._targets: dict[State, tuple[int, list[State | None]]] = {}

    @property
    def start(self) -> State:
        """The places where a text begins."""
        return self._start

    def targets(self, state: State) -> tuple[int, list[State | None]]:
        """Return where each class of characters leads."""
        found = self._targets.get(state)
        if found is None:
            places = cast(frozenset[Place], state)
            fine = any(self._slot(place).rhyme for place in places if not self._is_over(place))
            classes = self._fine if fine else self._coarse
            found = self._targets[state] = int(fine), [self._after(places, own) for own in classes]
        return found

    def ends(self, state: State) -> bool:
        """Return whether the text is complete here."""
        return any(map(self._is_over, cast(frozenset[Place], state)))

    def likeness_of(self, state: State) -> State:
        """Return how many slots are still to come, whatever the tones and the rhymes."""
        return frozenset(len(self._layouts[place.layout]) - place.slot for place in cast(frozenset[Place], state))

    def _begun(self, layout: Sequence[Slot], given: Mapping[str, frozenset[Unit]]) -> dict[str, frozenset[Unit]]:
        """Return what rhymes may be from the beginning, so that no line asks for a tone that a chosen rhyme lacks.

        The entering tone rhymes with no level one, so a rhyme of it can't be taken up by a line in a level tone.
        """
        levels: dict[str, set[bool]] = {}
        for slot in layout:
            if slot.rhyme:
                levels.setdefault(slot.rhyme, set()).add(slot.level)
        begun = dict(given)
        for letter in sorted(letter for letter, tones_ in levels.items() if len(tones_) > 1):
            level, oblique = (
                frozenset(unit for own in self._fine for unit in self._units_of(own.groups, tone))
                for tone in (True, False)
            )
            begun[letter] = level & oblique & begun.get(letter, level)
        return begun

    def _is_over(self, place: Place) -> bool:
        return place.slot == len(self._layouts[place.layout])

    def _slot(self, place: Place) -> Slot:
        return self._layouts[place.layout][place.slot]

    def _closed(self, place: Place) -> Iterator[Place]:
        """Yield the place, and those after it that an optional sign may be left out for."""
        yield place
        if not self._is_over(place) and self._slot(place).optional:
            yield from self._closed(place._replace(slot=place.slot + 1))

    def _after(self, places: frozenset[Place], own: _Class) -> State | None:
        after = frozenset(
            closed
            for place in places
            if not self._is_over(place)
            for moved in self._moved(place, self._slot(place), own)
            for closed in self._closed(moved)
        )
        return after or None

    def _moved(self, place: Place, slot: Slot, own: _Class) -> Iterator[Place]:
        """Yield the places after a character of a class."""
        if slot.signs:
            if own.sign and own.sign in slot.signs:
                yield place._replace(slot=place.slot + 1)
            return
        if not own.is_han or own.sign in self._without or (slot.head and own.sign != slot.head):
            return
        if (slot.is_judged or place.left) and not own.tone:
            return
        if slot.tone and not slot.tone & own.tone:
            return
        rhymes = place.rhymes
        if slot.rhyme:
            own_units = self._units_of(own.groups, slot.level)
            begun = dict(rhymes)
            left_units = own_units & begun[slot.rhyme] if slot.rhyme in begun else own_units
            if not left_units:
                return
            rhymes = tuple(sorted((begun | {slot.rhyme: left_units}).items()))
        left = place.left
        if slot.line:
            left = tuple(
                (spelled, odd == RESCUED) for spelled, odd in slot.line if not place.rescue or spelled[-3] == "P"
            )
        if not left:
            yield place._replace(slot=place.slot + 1, rhymes=rhymes)
            return
        for tone, bit in (("P", tones.LEVEL), ("Z", tones.OBLIQUE)):
            if own.tone & bit:
                rest = tuple(sorted({(spelled[1:], odd) for spelled, odd in left if spelled[0] == tone}))
                if rest and rest[0][0]:
                    yield Place(place.layout, place.slot + 1, rest, False, rhymes)
                elif rest:
                    yield Place(place.layout, place.slot + 1, (), rest[0][1], rhymes)


@functools.lru_cache(maxsize=8)
def _divided(
    script: str | None, alone: frozenset[str], judged: bool, grouped: bool, without: frozenset[str]
) -> tuple[ClassTree, tuple[_Class, ...]]:
    """Divide all characters by their tones, and if `grouped` by their rhyme groups too."""
    foreign: frozenset[str] = frozenset() if script is None else script_tables.foreign(script)
    groups = tones.groups() if judged else {}
    known = tones.tones() if judged else {}
    classes: dict[_Class, int] = {}
    class_of: dict[str, int] = {}
    none: frozenset[str] = frozenset()
    for character in sorted(_han() | alone):
        is_han = character in _han()
        if is_han and (character in foreign or (character in without and character not in alone)):
            continue
        own = _Class(
            character if character in alone else "",
            is_han,
            known.get(character, 0),
            groups.get(character, none) if grouped else none,
        )
        class_of[character] = classes.setdefault(own, len(classes))
    return ClassTree.of(class_of), tuple(classes)


@functools.cache
def _han() -> frozenset[str]:
    """All Chinese characters, by their ranges in Unicode."""
    return frozenset(chr(code) for first, last in HAN for code in range(first, last + 1))
