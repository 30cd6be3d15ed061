"""Chinese verse as text to verse as lines: what is an editor's note, where a line ends, which form a poem has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["jueju", "lüshi", "other"]

LACUNA = "□"
"""Stands for a character that the source has lost."""

_OPENING = "（("
_CLOSING = "）)"
_ENDS = "。！？；!?;"
_CLOSING_QUOTES = "」』》〉”’"
_LINE_END = re.compile("[，。！？；：,.!?;:\n]+")
# What takes a place in a line: any character but punctuation and space. \w lacks the private use areas, where old texts
# keep rare characters, and the signs for a character that is lost (□, ●, ○) or that a font lacks (〓).
_WORD = re.compile("[\\w\ue000-\uf8ff\U000f0000-\U0010ffff□●○〓]")
_NOT_WORDS = re.compile("[^\\w\ue000-\uf8ff\U000f0000-\U0010ffff□●○〓]+")
# A footnote's number: 〖1〗, or Chinese numerals in square brackets.
_MARK = re.compile(r"〖\d+〗|\[[一二三四五六七八九十○〇]+\]")
# Square brackets around anything else hold characters that an editor restored: they belong to the line. In the Tang
# poems, nine of ten such lines have their poem's metre only with the bracketed characters counted.
_RESTORED = re.compile(r"\[([^\[\]]*)\]")
# One character that had no code point when the text was typed, written by its parts: {臨/手}.
_GLYPH = re.compile(r"\{[^{}\n]*\}")
# One character by its parts, the Unicode way: ⿰ and ⿱ and their like, then two parts (⿲ and ⿳: three).
_SEQUENCE = re.compile("[⿲⿳].{3}|[⿰⿱⿴-⿻].{2}")


@dataclass(frozen=True)
class VerseForm:
    """What can be counted in a poem.

    Args:
        form: `"jueju"` (4 lines) or `"lüshi"` (8 lines) if all lines have 5 or all have 7 characters, else `"other"`.
        line_count: how many lines, where a line ends at a comma, full stop or their like.
        line_length: characters in each line if all have the same number, else None.
    """

    form: Form
    line_count: int
    line_length: int | None


def balanced(text: str) -> bool:
    """Return whether each round bracket, full-width or ASCII, has its partner."""
    depth = 0
    for character in text:
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


def strip_notes(text: str) -> str:
    """Return the text without its round-bracket notes, nested ones included.

    Every character outside the brackets stays. A note that runs over a line's end leaves a line's end behind, if the
    text before it had ended a sentence.

    Raises:
        ValueError: the brackets are not balanced, so that no one can tell note from verse.
    """
    if not balanced(text):
        raise ValueError("The round brackets are not balanced.")
    kept: list[str] = []
    depth = 0
    broken = False  # whether the note ran over a line's end
    for character in text:
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if depth == 0 and broken:
                if kept and kept[-1] in _ENDS:
                    kept.append("\n")
                broken = False
        elif depth == 0:
            kept.append(character)
        elif character == "\n":
            broken = True
    return "".join(kept)


def strip_marks(text: str) -> str:
    """Return the text without footnote numbers (`〖1〗`, `[一]`) and without the brackets of restored characters."""
    return _RESTORED.sub(r"\1", _MARK.sub("", text))


def close_up(text: str) -> str:
    """Return the text without lines of nothing but punctuation, such as the full stop that stood after a note.

    Closing quotation marks on such a line move to the end of the line before it.
    """
    kept: list[str] = []
    for line in text.split("\n"):
        if has_words(line):
            kept.append(line)
        elif kept:
            kept[-1] += "".join(character for character in line if character in _CLOSING_QUOTES)
    return "\n".join(kept)


def has_words(text: str) -> bool:
    """Return whether the text holds more than punctuation and space; a lacuna counts as a word."""
    return _WORD.search(text) is not None


def has_glyph(text: str) -> bool:
    """Return whether a character is written by its parts, as in `{臨/手}`."""
    return _GLYPH.search(text) is not None


def lines(text: str) -> tuple[str, ...]:
    """Return the lines of verse without punctuation; a character written by its parts becomes one `〓`."""
    text = _SEQUENCE.sub("〓", _GLYPH.sub("〓", strip_marks(text)))
    parts = (_NOT_WORDS.sub("", part) for part in _LINE_END.split(text))
    return tuple(part for part in parts if part)


def form(text: str) -> VerseForm:
    """Return the form of a poem whose notes have been stripped.

    Only what can be counted is looked at: neither rhyme nor tone, so a short old-style poem of the right size counts
    as a jueju.
    """
    found = lines(text)
    lengths = {len(line) for line in found}
    length = lengths.pop() if len(lengths) == 1 else None
    kind: Form = "other"
    if length in (5, 7):
        kind = "jueju" if len(found) == 4 else "lüshi" if len(found) == 8 else "other"
    return VerseForm(form=kind, line_count=len(found), line_length=length)
