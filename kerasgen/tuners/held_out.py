"""Chooses the held-out documents that each validation of a run scores, at a bounded cost.

Imports NumPy: import it late.
"""

from __future__ import annotations

import numpy as np

from kerasgen.models.scoring import Scores
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tuners.base import Validation

_SEED = 0  # not the run's seed, so that runs with different seeds are compared on the same documents


def sampled(held_out: EncodedDocuments, tokens: int | None) -> EncodedDocuments:
    """Return documents of at most so many target tokens together, the same ones at each call, in their order.

    They are drawn at random, each as likely as any other, until one would be too many. If the first one drawn is longer
    than that by itself, it is taken as far as it goes, with as many of its characters as its share of tokens has.

    Args:
        held_out: the documents; one without a target is never drawn.
        tokens: the bound, at least 1, or None for all documents.
    """
    if tokens is None or held_out.targets <= tokens:
        return held_out
    targets = np.maximum(held_out.lengths - 1, 0)
    order = np.random.default_rng(_SEED).permutation(len(held_out))
    order = order[targets[order] > 0]
    fitting = int(np.searchsorted(np.cumsum(targets[order]), tokens, side="right"))
    if not fitting:
        first = int(order[0])
        share = tokens / int(targets[first])
        characters = max(1, round(int(held_out.characters[first]) * share))
        return _of([held_out[first][: tokens + 1]], [characters])
    chosen = np.sort(order[:fitting]).tolist()
    return _of([held_out[n] for n in chosen], [int(held_out.characters[n]) for n in chosen])


def validation(step: int, scores: Scores) -> Validation:
    """Return the figures of the scored documents.

    Args:
        step: optimizer steps finished.
        scores: the scores of at least one document.
    """
    documents = int((scores.tokens > 0).sum())
    error = None
    if documents > 1:
        # Bits per character is a ratio of two sums over documents: the error of a ratio estimator.
        # Source: Cochran 1977, Sampling Techniques, chapter 6.
        off = scores.nll / np.log(2.0) - scores.bits_per_character * scores.characters
        error = float(np.sqrt(documents / (documents - 1) * np.square(off).sum()) / scores.characters.sum())
    return Validation(
        step,
        scores.loss,
        scores.bits_per_character,
        documents=documents,
        tokens=int(scores.tokens.sum()),
        standard_error=error,
    )


def _of(documents: list[np.ndarray], characters: list[int]) -> EncodedDocuments:
    return EncodedDocuments(
        token_ids=np.concatenate(documents),
        offsets=np.concatenate([[0], np.cumsum([len(ids) for ids in documents])]).astype(np.int64),
        characters=np.asarray(characters, np.int64),
    )
