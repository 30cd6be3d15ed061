"""Takes texts apart into the lines and pieces by which near-duplicates are found, and hashes them.

Hashes are the same in every process, so that several can share the work; see `kerasgen.corpora.hashing_processes`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from kerasgen.corpora import verse_variants

MOST_LINES: Final = 512
"""Of a longer text, only the first lines are compared."""
_TELLING, _TELLING_ASCII = 5, 20  # characters; a text of one shorter line ("Title says it all") is like none for it
_FEW_LINES = 4  # texts of fewer lines are compared by pieces as well
_LEAST_PIECES = 12  # short texts of one pattern ("the cat and the bed") are no copies of each other
_PIECE_WORDS, _PIECE_CHARACTERS = 3, 4

_CJK = "\u3400-\u9fff\U00020000-\U0003ffff\u3040-\u30ff"
_END = re.compile("[，。！？；：、…\n\u2028\u2029]+|[.!?;:]+(?=\\s|$)|[.!?]+[\"'”’)\\]]+")
_NO_WORDS = re.compile(r"[^\w\n]+")
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")


def lines_of(text: str) -> list[str]:
    """Return the verses or sentences of a text as they are compared, each once."""
    return _lines(_folded(text))


def pieces_of(text: str) -> list[str]:
    """Return overlapping runs of the words of a text, or of its Han and kana characters, each once."""
    words, size = _words(_folded(text))
    runs = ("\0".join(words[at : at + size]) for at in range(len(words) - size + 1))
    return list(dict.fromkeys(runs))[:MOST_LINES]


def _folded(text: str) -> str:
    return verse_variants.fold(text.casefold())


def _lines(folded: str) -> list[str]:
    pieces = _NO_WORDS.sub("", _END.sub("\n", folded)).split("\n")
    return list(dict.fromkeys(line for line in pieces if len(line) > 1))[:MOST_LINES]


def _words(folded: str) -> tuple[list[str], int]:
    """Return the words, and how many of them make a piece."""
    words = _WORD.findall(folded)
    return words, _PIECE_CHARACTERS if words and max(map(len, words)) == 1 else _PIECE_WORDS


class Hashes(NamedTuple):
    """Hashes of the lines and of the pieces of some texts, and the number of the text that each stands in.

    Args:
        lines: int64 `(lines,)`.
        line_texts: int32 `(lines,)`.
        pieces: int64 `(pieces,)`, of texts of few lines.
        piece_texts: int32 `(pieces,)`.
    """

    lines: array[int]
    line_texts: array[int]
    pieces: array[int]
    piece_texts: array[int]


def hashed(texts: Sequence[str], first: int) -> Hashes:
    """Return the hashes of texts.

    Args:
        texts: to take apart.
        first: number of the first one; those of the others follow.
    """
    found = Hashes(array("q"), array("i"), array("q"), array("i"))
    words_hashes: dict[str, int] = {}
    for number, text in enumerate(texts, first):
        folded = _folded(text)
        lines = _lines(folded)
        if len(lines) == 1 and len(lines[0]) < (_TELLING_ASCII if lines[0].isascii() else _TELLING):
            lines = []
        found.lines.extend(map(_hash, lines))
        found.line_texts.extend([number] * len(lines))
        if len(lines) < _FEW_LINES:
            words, size = _words(folded)
            if len(words) - size + 1 < _LEAST_PIECES:
                continue
            for word in set(words).difference(words_hashes):
                words_hashes[word] = _hash(word)
            numbers = [words_hashes[word] for word in words]
            runs = zip(*(numbers[at:] for at in range(size)), strict=False)
            pieces = list(dict.fromkeys(map(hash, runs)))[:MOST_LINES]
            if len(pieces) >= _LEAST_PIECES:
                found.pieces.extend(pieces)
                found.piece_texts.extend([number] * len(pieces))
    return found


def _hash(text: str) -> int:
    """Return 64 bits of a text. Python's hash of a `str` is another in each process; that of numbers is not."""
    return hash(tuple(text.encode("utf-8", "surrogatepass")))
