"""A form of Chinese verse as a constraint: lines and their lengths, punctuation, rhyme, tones, first characters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kerasgen.constraints import script_tables, verse_layouts
from kerasgen.constraints.base import ByteAutomaton, Constraint, require
from kerasgen.constraints.script_tables import HAN
from kerasgen.constraints.verse_automaton import Unit, VerseAutomaton
from kerasgen.keywords import near
from kerasgen.prosody import tones, tunes

FORMS: dict[str, tuple[int, int]] = {
    name: (lines, characters)
    for characters, numeral in ((5, "五"), (7, "七"))
    for lines, kinds in ((4, ("言絕句", "言绝句", "絕", "绝")), (8, ("言律詩", "言律诗", "律")))
    for name in (numeral + kind for kind in kinds)
}
"""Lines and characters a line of each form by its names, in traditional and in simplified characters."""

_COUNTED = re.compile(r"([0-9]{1,3})[x×]([0-9]{1,3})")
_REGULATED = (5, 7)  # characters of a line whose tones have patterns


@dataclass(frozen=True)
class VerseForm(Constraint):
    r"""Verse with a given number of lines and characters a line, and punctuation after each line.

    Args:
        form: `"五言絕句"`, `"七言絕句"`, `"五言律詩"`, `"七言律詩"`, the same in simplified characters, or
            abbreviated as `"七絕"`; lines and characters a line, as `"6x5"`, with an even number of lines; or a tune
            (詞牌) such as `"浣溪沙"`, of which each form that Song lyrics often have is allowed.
        odd_ends: the punctuation that may end a couplet's first line, or a line of a tune that does not rhyme, one
            character each.
        even_ends: the punctuation that may end a couplet, or a line of a tune that rhymes.
        between: what stands between couplets, or after such a line; `"\n"` is how the built-in corpora and the starter
            write verse.
        rhyme: let the couplets' last characters rhyme: all of one group of the 平水韻 in a level tone. Lines of a tune
            rhyme where and in the tone that the tune asks for, by the parts of the 詞林正韻. A group's name (`"東"`,
            `"上平聲一東"`) or any character of it gives the rhyme; of a tune, its first one. Needs the extra `rhyme`.
            A character that the table does not hold can't stand there. A line may rhyme on the same character as
            another.
        script: `"simplified"` or `"traditional"` leaves out the characters that belong to the other one alone, as
            `Script` does; None lets them mix. Needs the extra `opencc`.
        tones: let the tones (平仄) hold one of the four patterns of regulated verse, as `prosody.regulated` judges
            them; lines of 5 or 7 characters. Where a pattern's first line rhymes, `rhyme` asks it of that line too.
            A tune's tones are those that nearly all Song lyrics have at a place; they are known for its frequent forms.
            Needs the extra `rhyme`; characters that its table does not hold can't stand where a tone is asked for.
        acrostic: the first characters of all lines (藏頭), or of all couplets; nothing for any.
    """

    form: str
    odd_ends: str = "，？！"
    even_ends: str = "。？！"
    between: str = "\n"
    rhyme: bool | str = False
    script: Literal["simplified", "traditional"] | None = None
    tones: bool = False
    acrostic: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = isinstance(self.form, str) and (_shape(self.form) is not None or self.form in tunes.tunes_by_name())
        close = [] if known else near(str(self.form), [*FORMS, *tunes.tunes_by_name()])
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        require(
            known,
            f"`form` must be one of {', '.join(FORMS)}{hint}, lines and characters a line, such as 6x5, or one of the "
            f"{len(tunes.tunes())} tunes, such as {', '.join(list(tunes.tunes())[:3])}",
            f"form={self.form!r}",
        )
        shape = _shape(self.form)
        if shape is not None:
            lines, characters = shape
            require(
                lines % 2 == 0 and 2 <= lines <= 100 and 1 <= characters <= 100,
                "A form has an even number of lines, and at most 100 of them and of characters in each",
                f"form={self.form!r}",
            )
        self._check_punctuation()
        require(
            isinstance(self.rhyme, (bool, str)) and self.rhyme != "",
            "`rhyme` must be True, False, or a rhyme group or a character of one",
            f"rhyme={self.rhyme!r}",
        )
        require(isinstance(self.tones, bool), "`tones` must be True or False", f"tones={self.tones!r}")
        require(
            self.script is None or self.script in script_tables.NAMES,
            f"`script` must be one of {', '.join(script_tables.NAMES)}, or None",
            f"script={self.script!r}",
        )
        if self.tones:
            require(
                shape is None or shape[1] in _REGULATED,
                "`tones` are those of a tune, or of regulated verse, whose lines have 5 or 7 characters",
                f"form={self.form!r}, tones=True",
            )
            require(
                shape is not None or bool(verse_layouts.tune_forms(tunes.tunes_by_name()[self.form], tonal=True)),
                "No form of this tune has the 15 lyrics that its tones could be told from. Leave `tones` out",
                f"form={self.form!r}, tones=True",
            )
        if self.rhyme or self.tones:
            tones.require_table()
        if self.script is not None:
            script_tables.foreign(self.script)
        self._check_acrostic()
        if isinstance(self.rhyme, str):
            self._check_given()

    @property
    def shape(self) -> tuple[int, int]:
        """How many lines, and how many characters in each.

        Raises:
            ConstraintArgumentError: the form is a tune, whose lines differ; `lines` has their lengths.
        """
        shape = _shape(self.form)
        require(shape is not None, "A tune's lines differ in length; see `lines`", f"form={self.form!r}")
        assert shape is not None
        return shape

    @property
    def lines(self) -> tuple[tuple[int, ...], ...]:
        """The lengths of the lines of each form that is allowed; one, but for tunes."""
        shape = _shape(self.form)
        if shape is not None:
            return ((shape[1],) * shape[0],)
        forms = verse_layouts.tune_forms(tunes.tunes_by_name()[self.form], tonal=self.tones)
        return tuple(tuple(line.length for line in form) for form in forms)

    def automaton(self) -> ByteAutomaton:
        """Return the automaton over characters."""
        shape, ends = _shape(self.form), verse_layouts.Ends(self.odd_ends, self.even_ends, self.between)
        rhyme = bool(self.rhyme)
        if shape is None:
            tune = tunes.tunes_by_name()[self.form]
            layouts = verse_layouts.of_tune(tune, ends, heads=self.acrostic, rhyme=rhyme, tonal=self.tones)
        else:
            layouts = verse_layouts.of_lines(*shape, ends, heads=self.acrostic, rhyme=rhyme, tonal=self.tones)
        units = verse_layouts.units_of_parts if shape is None else verse_layouts.units_of_groups
        return VerseAutomaton(layouts, script=self.script, units=units, rhymes=self._given())

    def _given(self) -> Mapping[str, frozenset[Unit]]:
        """Return what the first rhyme may be, if it is given."""
        if not isinstance(self.rhyme, str):
            return {}
        if _shape(self.form) is not None:
            return {"a": verse_layouts.given_rhyme(self.rhyme, verse_layouts.units_of_groups, level=True)}
        first = next(line.rhyme for line in tunes.tunes_by_name()[self.form].forms[0] if line.rhyme)
        given = verse_layouts.given_rhyme(self.rhyme, verse_layouts.units_of_parts, level=first.isupper())
        return {first.lower(): given}

    def _check_given(self) -> None:
        """Refuse a given rhyme that a tune takes up in a tone that it lacks, whichever form of the tune is written."""
        given = self._given()
        if _shape(self.form) is not None:
            return
        ((letter, units),) = given.items()
        both = verse_layouts.parts_of_both_tones()
        forms = verse_layouts.tune_forms(tunes.tunes_by_name()[self.form], heads=self.acrostic, tonal=self.tones)
        changing = [form for form in forms if {letter, letter.upper()} <= {line.rhyme for line in form}]
        require(
            len(changing) < len(forms) or bool(units & both),
            "The rhyme of this tune is taken up in a level and in an oblique tone, and the entering tone (入聲) rhymes "
            "with no level one. Give another `rhyme`, or True",
            f"form={self.form!r}, rhyme={self.rhyme!r}",
        )

    def _check_punctuation(self) -> None:
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

    def _check_acrostic(self) -> None:
        heads = self.acrostic
        require(
            isinstance(heads, str) and all(map(_is_han, heads)),
            "`acrostic` must be Han characters, one for each line or each couplet",
            f"acrostic={heads!r}",
        )
        if not heads:
            return
        shape = _shape(self.form)
        counts = {len(lines) for lines in self.lines} | ({shape[0] // 2} if shape else set())
        require(
            len(heads) in counts,
            f"`acrostic` must have as many characters as {self.form} has lines"
            f"{' or couplets' if shape else ''}: {' or '.join(map(str, sorted(counts)))}",
            f"acrostic={heads!r} with {len(heads)}",
        )
        if self.script is not None:
            foreign = [head for head in heads if head in script_tables.foreign(self.script)]
            require(
                not foreign,
                f"`acrostic` must be in {self.script} characters, and {'、'.join(foreign)} are not",
                f"acrostic={heads!r}, script={self.script!r}",
            )
        if self.tones and shape is None:
            tune = tunes.tunes_by_name()[self.form]
            wanted = [form for form in verse_layouts.tune_forms(tune, tonal=True) if len(form) == len(heads)]
            known = {1: "平", 2: "仄", 3: "平 or 仄", 0: "unknown"}
            require(
                bool(verse_layouts.tune_forms(tune, heads=heads, tonal=True)),
                "With tones=True each character of `acrostic` must have the tone that its line begins with. Those of "
                f"{self.form} begin with "
                + " or with ".join(
                    "".join({"P": "平", "Z": "仄", ".": "中"}[line.tones[0]] for line in form) for form in wanted
                ),
                f"acrostic={heads!r} with {'、'.join(known[tones.tones().get(head, 0)] for head in heads)}",
            )
        elif self.tones:
            unknown = [head for head in heads if head not in tones.tones()]
            require(
                not unknown,
                f"With tones=True each character of `acrostic` must have a known tone, and {'、'.join(unknown)} have "
                "none in the table",
                f"acrostic={heads!r}",
            )
        if self.rhyme:
            of_one = [lines for lines in self.lines if len(lines) != len(heads) or 1 not in lines]
            require(
                len(of_one) == len(self.lines),
                "A line of one character that rhymes can't begin with a given one. Leave out `rhyme` or `acrostic`",
                f"form={self.form!r}, acrostic={heads!r}",
            )


def _shape(form: str) -> tuple[int, int] | None:
    counted = _COUNTED.fullmatch(form)
    return (int(counted[1]), int(counted[2])) if counted else FORMS.get(form)


def _is_han(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in HAN)


def _is_text(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text
