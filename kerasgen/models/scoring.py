"""Scores documents under a model, in nats. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from kerasgen import fork_safety, quiet
from kerasgen.errors import ModelArgumentError
from kerasgen.models.base import LanguageModel, MaskedLanguageModel
from kerasgen.models.forward import TokenLosses
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.packing import Packing, TokenBlock, block, pack


@dataclass(frozen=True, eq=False)
class Scores:
    """The cost of each document under a model.

    Args:
        nll: float64 `(documents,)`; the sum of -log p over the document's targets.
        tokens: int64 `(documents,)`; how many targets it has: its text's tokens and its end token, less those that are
            only read.
        characters: int64 `(documents,)`; Unicode code points of its text that are learned.
    """

    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]
    characters: NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Mean nats per target token."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def bits_per_character(self) -> float:
        """Bits per code point of text: the figure that survives a change of vocabulary."""
        return float(self.nll.sum() / np.log(2.0) / self.characters.sum())


def score(
    model: LanguageModel,
    encoded: EncodedDocuments,
    *,
    sequence_length: int,
    batch_size: int = 16,
    losses: TokenLosses | None = None,
) -> Scores:
    """Return what each document costs under the model; every target is counted exactly once.

    A document longer than `sequence_length` is scored in pieces, and each piece sees nothing of the one before it
    but its last token. Under a masked language model a document costs its pseudo-log-likelihood: each token is
    predicted from all others, and the end token is no target.

    Args:
        model: the model.
        encoded: at least one document.
        sequence_length: positions that the model attends over at once.
        batch_size: rows at once.
        losses: the model's forward pass, if one is compiled already.

    Raises:
        ModelArgumentError: `sequence_length` is more than the model's positions.
        TokenArgumentError: `sequence_length` is below 1.
    """
    fork_safety.check(fork_safety.KERAS)
    if isinstance(model, MaskedLanguageModel):
        from kerasgen.models import masked_predicting

        return masked_predicting.score(model, encoded, sequence_length=sequence_length, batch_size=batch_size)
    nll = np.zeros(len(encoded), np.float64)
    for batch, _, nats in batches(model, encoded, sequence_length, batch_size, losses):
        real, values = batch.weights > 0, nats.astype(np.float64)
        np.add.at(nll, batch.documents[real], values[real])
    return Scores(nll=nll, tokens=encoded.targets_by_document, characters=encoded.characters)


def token_nll(
    model: LanguageModel,
    encoded: EncodedDocuments,
    *,
    sequence_length: int,
    batch_size: int = 16,
    losses: TokenLosses | None = None,
) -> NDArray[np.float64]:
    """Return what each token costs, -log p in nats, float64 `(tokens,)` as `encoded.token_ids`; NaN for each first one.

    The arguments and errors are those of `score`.
    """
    if isinstance(model, MaskedLanguageModel):
        from kerasgen.models import masked_predicting

        return masked_predicting.token_nll(model, encoded, sequence_length=sequence_length, batch_size=batch_size)
    nll = np.full(len(encoded.token_ids), np.nan)
    for _, pieces, values in batches(model, encoded, sequence_length, batch_size, losses):
        for row, starts_and_targets in enumerate(pieces):
            at = 0
            for start, targets in starts_and_targets:
                nll[start + 1 : start + targets + 1] = values[row, at : at + targets]
                at += targets
    return nll


def batches(
    model: LanguageModel,
    encoded: EncodedDocuments,
    sequence_length: int,
    batch_size: int,
    losses: TokenLosses | None,
) -> Iterator[tuple[TokenBlock, list[list[tuple[int, int]]], Any]]:
    """Yield each batch, each row's pieces as first token and number of targets, and what `losses` computes of it."""
    longest = model.max_sequence_length
    if longest is not None and sequence_length > longest:
        raise ModelArgumentError(
            f"sequence_length must be at most the model's {longest} positions. Received: {sequence_length}."
        )
    losses = TokenLosses(model) if losses is None else losses
    packing: Packing = "best_fit" if losses.packs else "none"
    rows = pack(encoded, sequence_length=sequence_length, packing=packing, scoring=True)
    for first in range(0, len(rows), batch_size):
        indices = range(first, min(first + batch_size, len(rows)))
        batch = block(encoded, rows, indices, size=batch_size)
        inputs = {
            "token_ids": batch.token_ids,
            "targets": batch.targets,
            "positions": batch.positions,
            "segment_ids": batch.segment_ids,
        }
        pieces = [
            list(zip(rows.pieces.starts[members].tolist(), rows.pieces.targets[members].tolist(), strict=True))
            for members in (rows.members(index) for index in indices)
        ]
        with quiet.several_models():
            values = losses.predict_on_batch(inputs)
        yield batch, pieces, keras.tree.map_structure(local, values)


def local(values: Any) -> NDArray[Any]:
    """Return the rows that this process handed in; each of several processes scores all documents."""
    if getattr(values, "is_fully_addressable", True) or values.is_fully_replicated:
        return np.asarray(values)
    parts = {part.index[0].start or 0: np.asarray(part.data) for part in values.addressable_shards}
    return np.concatenate([parts[start] for start in sorted(parts)])
