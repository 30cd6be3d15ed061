"""Chooses the held-out documents that each validation of a run scores, at a bounded cost.

Imports NumPy: import it late.
"""

from __future__ import annotations

import numpy as np

from kerasgen.models.scoring import Scores
from kerasgen.tokens import encoding
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tuners.report import Validation

_SEED = 0  # not the run's seed, so that runs with different seeds are compared on the same documents


def sampled(held_out: EncodedDocuments, tokens: int | None) -> EncodedDocuments:
    """Return documents of at most so many target tokens together, the same ones at each call, in their order.

    They are drawn at random, each as likely as any other, until one would be too many. If those before it have less
    than half of the tokens together, it is taken as far as there is room, with as many of its characters as its share
    of tokens has; of one with parts, its end is taken.

    Args:
        held_out: the documents; one of which nothing is learned is never drawn.
        tokens: the bound of all targets, those that are only read with them, at least 1; or None for all documents.
    """
    computed = np.maximum(held_out.lengths - 1, 0)
    if tokens is None or int(computed.sum()) <= tokens:
        return held_out
    learned, parts = held_out.targets_by_document, held_out.parts
    order = np.random.default_rng(_SEED).permutation(len(held_out))
    order = order[learned[order] > 0]
    fitting = int(np.searchsorted(np.cumsum(computed[order]), tokens, side="right"))
    room = tokens - int(computed[order[:fitting]].sum())
    shortened = int(order[fitting]) if fitting < len(order) and 2 * room > tokens else None
    chosen = np.sort(order[: fitting + (shortened is not None)]).tolist()
    ids = [held_out[n] for n in chosen]
    characters = [int(held_out.characters[n]) for n in chosen]
    of_each = [None if parts is None else parts.of_document(n) for n in chosen]
    if shortened is not None:
        at = chosen.index(shortened)
        ids[at] = ids[at][: room + 1] if parts is None else ids[at][-room - 1 :]
        of_last = of_each[at]
        if of_last is not None:
            of_each[at] = of_last.last(room + 1)
        part = encoding.of_documents([ids[at]], [0], [of_each[at]])
        characters[at] = max(1, round(characters[at] * part.targets / int(learned[shortened])))
    return encoding.of_documents(ids, characters, of_each)


def sampled_pairs(held_out: EncodedDocuments, tokens: int | None) -> EncodedDocuments:
    """Return pairs whose texts have at most so many targets together, drawn as `sampled` does; one at least.

    Args:
        held_out: documents that all have a worse text.
        tokens: as for `sampled`.
    """
    assert held_out.rejected is not None
    computed = np.maximum(held_out.lengths - 1, 0) + np.maximum(held_out.rejected.lengths - 1, 0)
    if tokens is None or int(computed.sum()) <= tokens:
        return held_out
    order = np.random.default_rng(_SEED).permutation(len(held_out))
    fitting = max(1, int(np.searchsorted(np.cumsum(computed[order]), tokens, side="right")))
    return encoding.selected(held_out, np.sort(order[:fitting]).tolist())


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
