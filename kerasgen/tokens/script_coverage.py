"""Warns when a vocabulary was hardly made for the script of the texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from kerasgen.tokens.base import Tokenizer

SAMPLE_CHARACTERS: Final = 20_000
MOSTLY: Final = 0.75
"""Share of the letters of the texts that one script must have, for them to be in that script."""

SPELT_BYTES: Final = 2.0
"""Bytes that a token of the texts covers at least, if the vocabulary was made for such texts."""

KNOWN_SHARE: Final = 0.02
"""Share of a vocabulary's tokens with letters that a script it was made for has at least."""

LEAST_TOKENS: Final = 1_000
"""Fewest tokens with letters by which a vocabulary shows the scripts that it was made for."""

_NAMES: Final = {"CJK": "Han", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}


def unfamiliar_script(texts: Sequence[str], tokenizer: Tokenizer) -> str | None:
    """Return in words why a model with this vocabulary hardly knows the script of the texts, or None if it may.

    Both must hold: the texts are spelt in little more than bytes, and of the vocabulary's tokens with letters next to
    none has letters of their script. A vocabulary of few tokens, or of characters alone, says nothing of either.

    Args:
        texts: some of a corpus.
        tokenizer: the model's, as it was pretrained with.
    """
    sample = _beginning(texts)
    letters = Counter(map(_script, filter(str.isalpha, sample)))
    script, count = max(letters.items(), key=lambda item: item[1], default=("", 0))
    if not count or count < MOSTLY * letters.total():
        return None
    size_bytes = len(sample.encode("utf-8", "surrogatepass"))
    tokens = len(tokenizer.encode(sample))
    if size_bytes >= SPELT_BYTES * tokens:
        return None
    known = _vocabulary_scripts(tokenizer)
    if known.total() < LEAST_TOKENS or known[script] >= KNOWN_SHARE * known.total():
        return None
    main = max(known.items(), key=lambda item: item[1])[0]
    return (
        f"{count / letters.total():.0%} of the corpus's letters are {script}, and the model's vocabulary was made for "
        f"{main} text: {known[script]:,} of its {known.total():,} tokens with letters have {script} ones, and a token "
        f"covers {size_bytes / tokens:.1f} bytes of the corpus"
    )


def _beginning(texts: Sequence[str]) -> str:
    parts, left = [], SAMPLE_CHARACTERS
    for text in texts:
        parts.append(text[:left])
        left -= len(parts[-1])
        if not left:
            break
    return "\n".join(parts)


def _vocabulary_scripts(tokenizer: Tokenizer) -> Counter[str]:
    """Count the tokens with letters of each script; a token of two scripts counts for its first."""
    counts: Counter[str] = Counter()
    for token_id in range(tokenizer.vocabulary_size):
        try:
            text = tokenizer.token_bytes(token_id).decode("utf-8")
        except UnicodeDecodeError:  # a part of a character
            continue
        first = next(filter(str.isalpha, text), None)
        if first is not None:
            counts[_script(first)] += 1
    return counts


@lru_cache(maxsize=20_000)
def _script(letter: str) -> str:
    """The script's name, by the first word of the letter's."""
    name = unicodedata.name(letter, "?").split(" ")[0].split("-")[0]
    return _NAMES.get(name, name.capitalize())
