"""Measures how much texts repeat themselves and each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kerasgen.errors import MissingDependencyError

# A Han or kana character is a unit, as in sacrebleu's tokenizer for Chinese; elsewhere a word is, and each sign.
_UNIT = re.compile(r"[㐀-鿿豈-﫿぀-ヿ\U00020000-\U0003ffff]|[^\W㐀-鿿豈-﫿぀-ヿ\U00020000-\U0003ffff]+|[^\w\s]")


def units(text: str) -> list[str]:
    """Split a text into the units of n-grams: Han and kana characters, words of other scripts, and punctuation."""
    return _UNIT.findall(text)


def distinct(texts: Sequence[str], n: int) -> float:
    """Return distinct-n: different n-grams as a share of all n-grams of all texts, 0 where there are none.

    It falls as more text is looked at, so compare it between the same number of texts of the same length only.

    Source: Li et al. 2016, "A diversity-promoting objective function for neural conversation models", section 5.
    """
    seen: set[tuple[str, ...]] = set()
    count = 0
    for text in texts:
        words = units(text)
        grams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
        seen.update(grams)
        count += len(grams)
    return len(seen) / count if count else 0.0


def require_sacrebleu() -> None:
    """Raise unless `self_bleu` can be computed.

    Raises:
        MissingDependencyError: the package sacrebleu is not installed.
    """
    try:
        import sacrebleu  # noqa: F401
    except ImportError as cause:
        raise MissingDependencyError(
            "Self-BLEU needs the package sacrebleu. Run: pip install 'kerasgen[diversity]', or pass self_bleu=False.",
            package="sacrebleu",
            extra="diversity",
        ) from cause


def self_bleu(texts: Sequence[str], *, most: int = 100) -> float | None:
    """Return self-BLEU-4, 0 to 100: the mean BLEU of each text with the others as its references; lower is more varied.

    Every text is compared with every other, so at most `most` texts are, evenly spread over all; it rises with their
    number, so compare it between the same number of texts only.

    Args:
        texts: what was written.
        most: texts to compare.

    Returns:
        The mean over texts, or None where there are fewer than two, which have nothing to be compared with.

    Raises:
        MissingDependencyError: the package sacrebleu is not installed.

    Source: Zhu et al. 2018, "Texygen", section 3.2. N-grams are of `units`; sacrebleu smooths exponentially.
    """
    require_sacrebleu()
    from sacrebleu.metrics import BLEU

    chosen = [texts[place * len(texts) // most] for place in range(most)] if len(texts) > most else texts
    spaced = [" ".join(units(text)) for text in chosen]
    if len(spaced) < 2:
        return None
    bleu = BLEU(tokenize="none", effective_order=True)
    scores = [
        float(bleu.sentence_score(text, [*spaced[:place], *spaced[place + 1 :]]).score)
        for place, text in enumerate(spaced)
    ]
    return sum(scores) / len(scores)
