"""Lists the Chinese characters that belong to one script alone, simplified or traditional, by OpenCC's tables.

OpenCC says what a character becomes in the other script, and not whether it stands there too: 里 becomes 裏, and yet
千里 is traditional. So a character that the other script's own standard counts among the frequent ones (the first level
of Big5 or of GB 2312) belongs to both, but for those that its texts have next to never.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from kerasgen.errors import MissingDependencyError

NAMES: Final = ("simplified", "traditional")

# Han characters in blocks where every code point has been given a character (Unicode 15): extension A, the unified
# ideographs, extensions B to D; and 〇.
HAN: tuple[tuple[int, int], ...] = (
    (0x3007, 0x3007),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B739),
    (0x2B740, 0x2B81D),
)

# A script's own standard, and the first byte with which its second level begins.
_STANDARDS = {"simplified": ("gb2312", 0xD8), "traditional": ("big5", 0xC7)}
# Of these in the first level of Big5, each has under a twentieth of what its traditional form has in the poems of
# 全唐詩, or stands in ten of 58,966 at the most (see the log).
_SIMPLIFIED_ALL_THE_SAME = frozenset("丰么仆伙佣儿划几听坏帘并愿扑晒杰荐虫")


def foreign(script: str) -> frozenset[str]:
    """Return the characters that only the other script has, so that a text in this one can't have them.

    Raises:
        MissingDependencyError: OpenCC is not installed.
    """
    simplified, traditional = _alone()
    return traditional if script == "simplified" else simplified


def without(ranges: Sequence[tuple[int, int]], script: str) -> list[tuple[int, int]]:
    """Return ranges of code points, first and last, less those of the other script's characters."""
    left = []
    codes = sorted(map(ord, foreign(script)))
    for first, last in ranges:
        for code in codes:
            if first <= code <= last:
                if first < code:
                    left.append((first, code - 1))
                first = code + 1
        if first <= last:
            left.append((first, last))
    return left


@functools.cache
def _alone() -> tuple[frozenset[str], frozenset[str]]:
    """Return the characters that are only simplified, and those that are only traditional."""
    try:
        import opencc
    except ImportError as cause:
        raise MissingDependencyError(
            "To keep texts to one script needs the package opencc for its tables. Run: pip install 'kerasgen[opencc]'.",
            package="opencc",
            extra="opencc",
        ) from cause
    characters = [chr(code) for first, last in HAN for code in range(first, last + 1)]

    def changed(conversion: str, other: str) -> set[str]:
        written = opencc.OpenCC(conversion).convert("\n".join(characters)).split("\n")
        pairs = zip(characters, written, strict=True)
        return {own for own, new in pairs if own != new and not _is_frequent(own, other)}

    traditional = changed("t2s", "simplified")
    # A traditional variant that OpenCC writes otherwise in both directions (麽) is not simplified.
    return frozenset(changed("s2t", "traditional") - traditional), frozenset(traditional)


def _is_frequent(character: str, script: str) -> bool:
    if script == "traditional" and character in _SIMPLIFIED_ALL_THE_SAME:
        return False
    encoding, second_level = _STANDARDS[script]
    try:
        return character.encode(encoding)[0] < second_level
    except UnicodeEncodeError:
        return False
