"""The likeliest tokens at each place of documents, beside those that stand there. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from keras import ops
from numpy.typing import NDArray

from kerasgen import fork_safety
from kerasgen.models import scoring
from kerasgen.models.base import LanguageModel, MaskedLanguageModel
from kerasgen.models.forward import TokenLosses
from kerasgen.tokens.encoding import EncodedDocuments

_LOGITS: Final = 1 << 26  # floats of a batch's logits, at most


class _TopTokens(TokenLosses):
    """The likeliest tokens at each position of a causal model.

    Args:
        model: as for `TokenLosses`.
        top: how many.
    """

    def __init__(self, model: LanguageModel, top: int) -> None:
        super().__init__(model)
        self.top = top
        self.ids = model.tokenizer.vocabulary_size

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return log p and ids, each `(batch, sequence_length, top)`, the likeliest first."""
        log_p = ops.log_softmax(ops.cast(self.logits(inputs), "float32"), axis=-1)
        values, ids = ops.top_k(log_p[..., : self.ids], self.top)
        return {"log_p": values, "ids": ids}


def top_tokens(
    model: LanguageModel, encoded: EncodedDocuments, *, top: int, sequence_length: int, batch_size: int = 16
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what the model holds the likeliest at the place of each token, the likeliest first.

    Args:
        model: the model; a masked one judges each place by all other tokens.
        encoded: the documents.
        top: how many tokens of each place.
        sequence_length: as for `kerasgen.models.scoring.score`.
        batch_size: rows at once, at most.

    Returns:
        Ids, `(tokens, top)` as `encoded.token_ids`, -1 where nothing predicts a token; and log p in nats of each, NaN
        there.
    """
    fork_safety.check(fork_safety.KERAS)
    top = min(top, model.tokenizer.vocabulary_size)
    ids = np.full((len(encoded.token_ids), top), -1, np.int64)
    log_p = np.full(ids.shape, np.nan)
    if isinstance(model, MaskedLanguageModel):
        from kerasgen.models import masked_predicting

        texts = [of_document[1:-1].tolist() for of_document in encoded]
        for text, first, rows in masked_predicting.given_others(
            model, texts, sequence_length=sequence_length, batch_size=batch_size
        ):
            begin = int(encoded.offsets[text]) + 1 + first
            for place, of_place in enumerate(rows, begin):
                ids[place] = np.argsort(-of_place[0], kind="stable")[:top]
                log_p[place] = of_place[0][ids[place]]
        return ids, log_p
    size = max(1, min(batch_size, _LOGITS // (sequence_length * model.tokenizer.vocabulary_size)))
    for _, pieces, values in scoring.batches(model, encoded, sequence_length, size, _TopTokens(model, top)):
        for row, starts_and_targets in enumerate(pieces):
            at = 0
            for start, targets in starts_and_targets:
                ids[start + 1 : start + targets + 1] = values["ids"][row, at : at + targets]
                log_p[start + 1 : start + targets + 1] = values["log_p"][row, at : at + targets]
                at += targets
    return ids, log_p
