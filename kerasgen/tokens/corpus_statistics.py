"""Counts the lengths and the characters of a corpus, for its report. Imports NumPy: import it late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kerasgen.tokens.encoding import EncodedDocuments

_BINS: Final = 36
_COMMON: Final = 24


def lengths(train: EncodedDocuments, held_out: EncodedDocuments) -> dict[str, Any]:
    """Return a histogram of the documents' lengths in characters, as JSON can hold it.

    Of documents with parts the characters that are learned count. The last bin holds all longer ones: the longest
    hundredth of documents must not press the others into one bin.

    Args:
        train: the training documents.
        held_out: those that are held out, perhaps none.

    Returns:
        `first` and `width` of the bins, in characters; the counts of `train` and `held_out` in each bin, which begins
        at `first + n * width`; `shortest`, `median`, `mean` and `longest` of all; and `tokens`, the mean of a document.
    """
    characters = np.concatenate([np.asarray(train.characters), np.asarray(held_out.characters)])
    if not len(characters):
        return {}
    first, last = int(characters.min()), float(np.quantile(characters, 0.99))
    width = max(1, -(-int(last - first + 1) // _BINS))
    bins = max(1, min(_BINS, int((characters.max() - first) // width) + 1))

    def counted(of_each: NDArray[np.int64]) -> list[int]:
        places = np.minimum((np.asarray(of_each) - first) // width, bins - 1)
        return [int(count) for count in np.bincount(places.astype(np.int64), minlength=bins)]

    return {
        "first": first,
        "width": width,
        "train": counted(train.characters),
        "held_out": counted(held_out.characters),
        "shortest": first,
        "median": float(np.median(characters)),
        "mean": float(characters.mean()),
        "longest": int(characters.max()),
        "tokens": float((train.lengths.sum() + held_out.lengths.sum()) / len(characters)),
    }


def characters(texts: Iterable[str]) -> dict[str, Any]:
    """Return how many different characters texts have, and the most frequent ones, as JSON can hold it.

    Args:
        texts: a sample of the corpus.

    Returns:
        `sampled`, characters that were counted, white space and halves of pairs left out; `different` ones of those;
        and `common`, the most frequent letters, Han characters and digits with the share of each, 0 to 1.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    for character in list(counts):
        if character.isspace() or "\ud800" <= character <= "\udfff":
            del counts[character]
    total = counts.total()
    words = {character: count for character, count in counts.items() if character.isalnum()}
    common = [[character, count / total] for character, count in Counter(words).most_common(_COMMON)]
    return {"sampled": total, "different": len(counts), "common": common}
