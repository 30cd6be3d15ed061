"""Predicts masked tokens of many texts at once, and scores texts by it. Imports Keras: import it late.

Source: Salazar et al. 2020 (arXiv 1910.14659) for pseudo-log-likelihoods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from kerasgen import fork_safety, quiet
from kerasgen.errors import ModelArgumentError
from kerasgen.models.base import MaskedLanguageModel
from kerasgen.tokens.encoding import EncodedDocuments

if TYPE_CHECKING:
    from kerasgen.models.scoring import Scores

_LENGTHS = 16  # rows are padded to a multiple of so many tokens, so that few shapes are compiled
_LOGITS = 1 << 24  # floats of a batch's logits, at most


class _Predictor(keras.Model):  # type: ignore[misc]
    """The log-probabilities at some places; the network's weights are shared, not copied."""

    def __init__(self, network: Any, ids: int) -> None:
        super().__init__(name="predictor")
        self.network, self.ids = network, ids
        self.built = True

    def build(self, input_shape: Any) -> None:
        """Do nothing: the network is built."""
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return float32 `(batch, places, ids)`."""
        logits = self.network.logits_at(inputs, inputs["places"])[..., : self.ids]
        return keras.ops.log_softmax(logits, axis=-1)


class Predictor:
    """Log-probabilities of the tokens at places of texts, compiled once for each shape.

    Args:
        model: whose rows without a token of the tokenizer are left out of the distribution.
        batch_size: rows at once, at most.
    """

    def __init__(self, model: MaskedLanguageModel, batch_size: int = 16) -> None:
        fork_safety.check(fork_safety.KERAS)
        self.model, self.batch_size = model, batch_size
        self._predictor = _Predictor(model.network, model.tokenizer.vocabulary_size)

    def log_probabilities(
        self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """Return for each text log p of every token at each of its places, float32 `(places, ids)`.

        Args:
            texts: ids, start and end tokens with them; at most the model's positions each.
            places: positions in each text, at least one.
        """
        found: list[NDArray[np.float32]] = []
        for rows in self._batches(texts, places):
            found += self._of_batch([texts[row] for row in rows], [places[row] for row in rows])
        order = [row for rows in self._batches(texts, places) for row in rows]
        return [found[place] for place in np.argsort(order, kind="stable")]

    def _batches(self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield rows of like length together."""
        most = max(map(len, places), default=1)
        size = max(1, min(self.batch_size, _LOGITS // (_power(most) * self._predictor.ids)))
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for first in range(0, len(by_length), size):
            yield by_length[first : first + size]

    def _of_batch(self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        longest, most = max(map(len, texts)), _power(max(map(len, places)))
        length = min(-(-longest // _LENGTHS) * _LENGTHS, self.model.max_sequence_length)
        shape = (_power(len(texts)), length)
        token_ids, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        positions = np.zeros(shape, np.int32) + np.arange(length, dtype=np.int32)
        at = np.zeros((shape[0], most), np.int32)
        for row, (ids, taken) in enumerate(zip(texts, places, strict=True)):
            token_ids[row, : len(ids)] = ids
            segment_ids[row, : len(ids)] = 1
            at[row, : len(taken)] = taken
        inputs = {"token_ids": token_ids, "positions": positions, "segment_ids": segment_ids, "places": at}
        with quiet.several_models():
            values = np.asarray(self._predictor.predict_on_batch(inputs))
        return [values[row, : len(taken)] for row, taken in enumerate(places)]


def pseudo_log_likelihoods(
    model: MaskedLanguageModel,
    texts: Sequence[Sequence[int]],
    *,
    sequence_length: int | None = None,
    batch_size: int = 16,
    predictor: Predictor | None = None,
) -> list[NDArray[np.float64]]:
    """Return log p in nats of each token of each text, given all others of it.

    Each token is masked by itself, so a text of n tokens is computed n times. A text that is longer than
    `sequence_length` is scored in pieces that don't see each other.

    Args:
        model: the model.
        texts: ids without start and end tokens.
        sequence_length: positions that the model sees at once, start and end tokens among them; None for
            `model.default_sequence_length`.
        batch_size: rows at once.
        predictor: of the model, if one is compiled already.
    """
    length = model.default_sequence_length if sequence_length is None else sequence_length
    found = [np.zeros(len(text)) for text in texts]
    for place, first, of_rows in given_others(
        model, texts, sequence_length=length, batch_size=batch_size, predictor=predictor
    ):
        for n, row in enumerate(of_rows, first):
            found[place][n] = row[0, texts[place][n]]
    return found


def given_others(
    model: MaskedLanguageModel,
    texts: Sequence[Sequence[int]],
    *,
    sequence_length: int,
    batch_size: int = 16,
    predictor: Predictor | None = None,
) -> Iterator[tuple[int, int, list[NDArray[np.float32]]]]:
    """Yield of each piece its text's index, its first token's place there, and log p of all tokens at each place.

    Args:
        model: as for `pseudo_log_likelihoods`, as are the others.
        texts: as there.
        sequence_length: as there.
        batch_size: as there.
        predictor: as there.
    """
    predictor = Predictor(model, batch_size) if predictor is None else predictor
    start, end, mask = model.tokenizer.start_token_id, model.tokenizer.end_token_id, model.mask_token_id
    assert start is not None
    for place, text in enumerate(texts):
        for first in range(0, len(text), sequence_length - 2):
            body = list(text[first : first + sequence_length - 2])
            rows = [[start, *body[:n], mask, *body[n + 1 :], end] for n in range(len(body))]
            yield place, first, predictor.log_probabilities(rows, [[n + 1] for n in range(len(body))])


def score(
    model: MaskedLanguageModel, encoded: EncodedDocuments, *, sequence_length: int, batch_size: int = 16
) -> Scores:
    """Return what each document costs by its pseudo-log-likelihood; see `kerasgen.models.scoring.score`."""
    from kerasgen.models.scoring import Scores

    nll = token_nll(model, encoded, sequence_length=sequence_length, batch_size=batch_size)
    counted = _counted(encoded)
    summed = np.add.reduceat(np.where(counted, nll, 0.0), encoded.offsets[:-1]) if len(encoded) else np.zeros(0)
    tokens = np.add.reduceat(counted.astype(np.int64), encoded.offsets[:-1]) if len(encoded) else np.zeros(0, np.int64)
    return Scores(nll=summed, tokens=tokens, characters=encoded.characters)


def token_nll(
    model: MaskedLanguageModel, encoded: EncodedDocuments, *, sequence_length: int, batch_size: int = 16
) -> NDArray[np.float64]:
    """Return what each token costs given all others, as `kerasgen.models.scoring.token_nll` does.

    It is NaN for each first token and 0 for each end token, which stand for the document's edges and are never masked.
    """
    if not 3 <= sequence_length <= model.max_sequence_length:
        raise ModelArgumentError(
            f"sequence_length must be from 3 to the model's {model.max_sequence_length} positions. Received: "
            f"{sequence_length}."
        )
    scores = pseudo_log_likelihoods(
        model, [ids[1:-1].tolist() for ids in encoded], sequence_length=sequence_length, batch_size=batch_size
    )
    nll = np.zeros(len(encoded.token_ids))
    for of_document, begin in zip(scores, encoded.offsets[:-1].tolist(), strict=True):
        nll[begin] = np.nan
        nll[begin + 1 : begin + 1 + len(of_document)] = -of_document
    return nll


def _counted(encoded: EncodedDocuments) -> NDArray[np.bool_]:
    """Return which tokens are masked and scored: those between the edges that are learned, bool `(tokens,)`."""
    counted = np.ones(len(encoded.token_ids), np.bool_)
    counted[encoded.offsets[:-1]] = False
    counted[encoded.offsets[1:] - 1] = False
    if encoded.parts is not None:
        at = np.arange(len(counted), dtype=np.int64)
        counted &= encoded.parts.learned(at, at + 1) > 0
    return counted


def _power(count: int) -> int:
    """Return the least power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()
