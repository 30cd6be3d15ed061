"""A model and documents become an `Evaluation`. Imports Keras: import it late."""

from __future__ import annotations

from kerasgen.errors import ArgumentError
from kerasgen.evaluation.base import Evaluation
from kerasgen.models.base import LanguageModel
from kerasgen.models.scoring import score
from kerasgen.tokens.encoding import EncodedDocuments


def evaluate(
    model: LanguageModel, encoded: EncodedDocuments, *, sequence_length: int | None = None, batch_size: int = 16
) -> Evaluation:
    """Return how well the model predicts the documents.

    Args:
        model: the model.
        encoded: at least one document.
        sequence_length: positions that the model sees at once, or None for `model.default_sequence_length`.
        batch_size: rows at once.

    Raises:
        ArgumentError: there is no document.
    """
    if not encoded.targets:
        raise ArgumentError("There is nothing to evaluate on: no document was given.")
    length = model.default_sequence_length if sequence_length is None else sequence_length
    scores = score(model, encoded, sequence_length=length, batch_size=batch_size)
    return Evaluation(
        loss=scores.loss,
        bits_per_character=scores.bits_per_character,
        documents=len(encoded),
        tokens=int(scores.tokens.sum()),
        characters=int(scores.characters.sum()),
    )
