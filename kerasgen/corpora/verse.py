"""Parses Chinese verse: which parts are an editor's notes, where a line ends, which form a poem has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["jueju", "lüshi", "other"]

LACUNA = "□"
"""Stands for a character that the source has lost; other signs for it are found by `has_lacuna`."""

_OPENING = "（("
_CLOSING = "）)"
_ENDS = "。！？；!?;"
_CLOSING_QUOTES = "」』》〉”’"
_LINE_END = re.compile("[，。！？；：,.!?;:\n]+")
# What takes a place in a line: any character but punctuation and space. \w lacks the private use areas, where old texts
# keep rare characters, and the signs for a character that is lost (□, ●, ○) or that a font lacks (〓).
_WORD = re.compile("[\\w\ue000-\uf8ff\U000f0000-\U0010ffff□●○〓]")
_NOT_WORDS = re.compile("[^\\w\ue000-\uf8ff\U000f0000-\U0010ffff□●○〓\n]+")
# A footnote's number: 〖1〗, a circled one, or one in square or tortoise-shell brackets.
_MARK = re.compile(
    r"〖\d+〗|\[(?:\d+|[一二三四五六七八九十○〇]+)\]|〔(?:\d+|[一二三四五六七八九十○〇]+)〕|[\u2460-\u2473]"
)
_MARKED = re.compile("[\\[〖〔〕［］\u2460-\u2473]")
# Square brackets around anything else hold characters that an editor restored: they belong to the line. In the Tang
# poems, nine of ten such lines have their poem's metre only with the bracketed characters counted.
_RESTORED = re.compile(r"\[([^\[\]]*)\]")
# Tortoise-shell brackets, or wide square ones: a singer's direction where they begin or fill a clause, else a tune
# or a restored character that belongs to the line. A clause that goes on with a comma has the bracket for its subject.
_DIRECTION = re.compile(r"(^|[。！？；!?;\n])([「『《〈“‘]?)[〔［][^〔〕［］\n]*[〕］][。；]?(?![，,、])", re.MULTILINE)
_TORTOISE_SHELL = re.compile(r"[〔〕［］]")
# What stands for lost characters: a box or a disc, the sign for a byte that could not be decoded, an omission.
_LACUNA = re.compile("[□●囗■◆▢◻◼○\ufffd]|…|[上下中前後后]缺")
# A note that says that the poem goes on where it stands.
_LOST = re.compile(r"[（(][以已]?[上下中前後后原]?[缺闕阙佚泐脫脱](?!題|题|名|作者)[^（()）]{0,4}[）)]")
# One character that had no code point when the text was typed, written by its parts: {臨/手}.
_GLYPH = re.compile(r"\{[^{}\n]*\}")
# One character by its parts, the Unicode way: ⿰ and ⿱ and their like, then two parts (⿲ and ⿳: three).
_SEQUENCE = re.compile("[⿲⿳].{3}|[⿰⿱⿴-⿻].{2}")
_BY_PARTS = re.compile("[{⿰-⿻]")
# Words of an editor, who cites books by chapter and says how other books have it.
_EDITOR = re.compile("[《〈]|見|见|按|一作|又作|原作|卷|同前|以上|錄|录|題作|题作")
_REMARK = re.compile(
    "(?:按|案|附注|附註|校記|出處)[：:]|(?:見|以上|右).{0,12}[《〈]|《[^》]*》.{0,12}(?:卷|作[「《])|處士門。|.*Content-Type"
)
_ORDINAL = r"[\s其第之一二三四五六七八九十百千〇○零\d首則则]*"
_FRAGMENT = re.compile(
    rf"(?:又|諧詩|谐诗|詩|诗)?(?:[逸佚殘残斷断雜杂零摘散][章]?句|句|零章)(?:{_ORDINAL}|[（(].*)$", re.DOTALL
)
_FRAGMENT_NOTE = re.compile(r"[（(](?:[逸佚殘残斷断零摘散末首起結结詩诗])?句[^（()）\w]*(?:〖\d+〗)?[）)]")
_CATALOGUE = re.compile(rf"(?:存目|存疑目){_ORDINAL}(?:[（(].*)?$", re.DOTALL)
_FIRST_LINE = re.compile("(?:詩題|诗题|題|题)[：:].*首句", re.DOTALL)
_FOREWORD = re.compile(
    r"(?:前言|序言|自序|序|序文|後記|后记|跋|凡例|例言|編例|编例|出版說明|出版说明|整理說明|整理说明|修訂說明|.{0,12}考釋|.{0,12}考释)$"
)
_BIOGRAPHY = re.compile("[詩诗][一二三四五六七八九十百]{1,3}首[。\\s]*$")
_LEAST_PROSE = 150  # characters; forewords are longer than most poems of that title
_SPEECH = re.compile(
    r"[（(<〈【][^（()）>]{0,16}(?:云|白|曰|念|說|说|問|问|答|诗|詩|詞|词)(?:介|科|了)?[，。：:]?[）)>〉】]"
)


@dataclass(frozen=True)
class VerseForm:
    """The countable form of a poem.

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
    if not _has_brackets(text):
        return True
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
    if not _has_brackets(text):
        return text
    outside: list[str] = []
    depth = 0
    broken = False  # whether the note ran over a line's end
    for character in text:
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if depth == 0 and broken:
                if outside and outside[-1] in _ENDS:
                    outside.append("\n")
                broken = False
        elif depth == 0:
            outside.append(character)
        elif character == "\n":
            broken = True
    return "".join(outside)


def _has_brackets(text: str) -> bool:
    return "（" in text or "）" in text or "(" in text or ")" in text


def mend_brackets(text: str) -> str | None:
    """Return the text with balanced brackets where one stray bracket leaves no doubt what is verse, or None.

    There is no doubt where nothing but punctuation follows a closing bracket that has no partner, and where an opening
    one without a partner begins a clause after the verse and an editor's words run from there to the text's end.
    """
    if balanced(text):
        return text
    opened: list[int] = []
    for place, character in enumerate(text):
        if character in _OPENING:
            opened.append(place)
        elif character in _CLOSING:
            if opened:
                opened.pop()
            elif has_words(text[place:]):
                return None
            else:
                before = text[:place].rstrip("。\n")
                remark = max(before.rfind(end) for end in "\n。；？！") + 1
                clear = text[:remark] if _EDITOR.search(text[remark:place]) else text[:place] + text[place + 1 :]
                return clear if balanced(clear) and has_words(clear) else None
    before, note = text[: opened[0]], text[opened[0] + 1 :]
    begins_clause = before.endswith(("\n", "〗", *_ENDS))
    return before.rstrip("\n") if begins_clause and has_words(before) and _EDITOR.search(note) else None


def strip_remarks(text: str) -> str:
    """Return the text without the last lines if they are an editor's remark outside of brackets, or of a web page."""
    if "《" not in text and "：" not in text and "Content-Type" not in text:
        return text
    text_lines = text.split("\n")
    for place, line in enumerate(text_lines):
        if place and _REMARK.match(line):
            return "\n".join(text_lines[:place])
    return text


def strip_marks(text: str) -> str:
    """Return the text without footnote numbers (`〖1〗`, `[一]`), directions (`〔合唱〕`) and other brackets.

    Square and tortoise-shell brackets round restored characters or the name of a tune go, what they hold stays.
    """
    if _MARKED.search(text) is None:  # nearly every poem, and a corpus is read before each run
        return text
    text = _RESTORED.sub(r"\1", _MARK.sub("", text))
    if _TORTOISE_SHELL.search(text) is None:
        return text
    return _TORTOISE_SHELL.sub("", _DIRECTION.sub(r"\1\2", text))


def has_lacuna(text: str) -> bool:
    """Return whether characters are lost: a box, a disc, U+FFFD, dots, or the words that some of it is missing."""
    return _LACUNA.search(text) is not None


def says_lost(text: str) -> bool:
    """Return whether a note in the text says that more of it is lost, such as `（下缺）`."""
    return _has_brackets(text) and _LOST.search(text) is not None


def is_fragment(title: str) -> bool:
    """Return whether a title says that what follows are lines of a poem that is lost, such as `句` or `逸句 三`."""
    return _FRAGMENT.match(title.strip()) is not None or _FRAGMENT_NOTE.search(title) is not None


def is_catalogue_entry(title: str, text: str) -> bool:
    """Return whether an entry names a poem that stands elsewhere or is lost (存目), and holds none."""
    return _CATALOGUE.match(title.strip()) is not None or _FIRST_LINE.match(text) is not None


def is_editors_prose(title: str, text: str) -> bool:
    """Return whether an entry, its notes stripped, is the foreword, afterword or study of a collection's editor."""
    named = len(text) > _LEAST_PROSE and _FOREWORD.match(title.strip()) is not None and form(text).line_length is None
    if not title.strip() and _BIOGRAPHY.search(text):
        return True
    return named or (text.count("《全") > 1 and text.count("卷") > 1)


def has_speech(text: str) -> bool:
    """Return whether a play's stage directions say that what follows is spoken: `(正旦云)`, `(詩曰)`."""
    return _SPEECH.search(text) is not None


def close_up(text: str) -> str:
    """Return the text without lines of nothing but punctuation, such as the full stop that stood after a note.

    Closing quotation marks on such a line move to the end of the line before it.
    """
    verse_lines: list[str] = []
    for line in text.split("\n"):
        if has_words(line):
            verse_lines.append(line)
        elif verse_lines:
            verse_lines[-1] += "".join(character for character in line if character in _CLOSING_QUOTES)
    return "\n".join(verse_lines)


def is_placeholder(text: str) -> bool:
    """Return whether the only word is 空, which stands in 全唐诗 for a poem of which nothing but a note is there."""
    return "空" in text and lines(text) == ("空",)  # looked for first: nearly no poem holds it


def has_words(text: str) -> bool:
    """Return whether the text holds more than punctuation and space; a lacuna counts as a word."""
    return _WORD.search(text) is not None


def has_glyph(text: str) -> bool:
    """Return whether a character is written by its parts, as in `{臨/手}`."""
    return _GLYPH.search(text) is not None


def lines(text: str) -> tuple[str, ...]:
    """Return the lines of verse without punctuation; a character written by its parts becomes one `〓`."""
    text = strip_marks(text)
    if _BY_PARTS.search(text) is not None:
        text = _SEQUENCE.sub("〓", _GLYPH.sub("〓", text))
    parts = _NOT_WORDS.sub("", _LINE_END.sub("\n", text)).split("\n")
    return tuple(part for part in parts if part)


def form(text: str) -> VerseForm:
    """Return the form of a poem whose notes have been stripped.

    Only what can be counted is looked at: neither rhyme nor tone, so a short old-style poem of the right size counts
    as a jueju.
    """
    verses = lines(text)
    lengths = {len(line) for line in verses}
    length = lengths.pop() if len(lengths) == 1 else None
    kind: Form = "other"
    if length in (5, 7):
        kind = "jueju" if len(verses) == 4 else "lüshi" if len(verses) == 8 else "other"
    return VerseForm(form=kind, line_count=len(verses), line_length=length)
