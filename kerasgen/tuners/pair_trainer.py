"""The model as `fit` trains it on pairs of a better and a worse text. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import NDArray

from kerasgen import quiet
from kerasgen.models.base import LanguageModel
from kerasgen.models.scoring import local
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.pairs import PairRows
from kerasgen.tuners.pair_plan import TOKENS, inputs_of
from kerasgen.tuners.preference_losses import PreferenceLoss
from kerasgen.tuners.trainer import LastValues, Trainer


class PairLoss(NamedTuple):
    """Losses of a batch, each a float32 scalar: the weighted sum over its pairs.

    Args:
        loss: of the loss.
        accuracy: of whether the better answer has the higher reward; half for two equal ones.
        margin: of the better answer's reward less the worse one's.
    """

    loss: Any
    accuracy: Any
    margin: Any


class RoutedPairLoss(NamedTuple):
    """The same under a mixture of experts.

    Args:
        loss: as in `PairLoss`, as are the next two.
        accuracy: as above.
        margin: as above.
        router_loss: what unbalanced routers cost, which training adds to the loss.
    """

    loss: Any
    accuracy: Any
    margin: Any
    router_loss: Any


class PairTrainer(Trainer):
    """The model as `fit` trains it on pairs: the loss is the mean over the pairs of an optimizer step.

    It is called with a mapping of `token_ids`, `targets`, `positions`, `segment_ids` and `weights`, each
    `(rows, 2, sequence_length)`, the better texts at 0; `pair_weights`, `(rows, places)`; and `reference`,
    `(rows, 2, places)`, the reference's log-probability of each answer.

    Args:
        model: as in `Trainer`, as are the last two.
        loss: the loss over pairs.
        remat: as above.
        batches: as above.
    """

    def __init__(self, model: LanguageModel, *, loss: PreferenceLoss, remat: bool = False, batches: int = 1) -> None:
        super().__init__(model, remat=remat, batches=batches)
        self.preference = loss
        self.step_margin = LastValues("step_margin", batches)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return the batch's loss while training, and otherwise what `read_pairs` yields, without a reference."""
        places, length = inputs["pair_weights"].shape[1], inputs["token_ids"].shape[-1]
        flat = {name: ops.reshape(inputs[name], (-1, length)) for name in TOKENS}
        # Which answer of the batch each position is of, counted over its rows and their places.
        row = ops.cumsum(ops.ones_like(flat["segment_ids"]), axis=0) - 1
        flat["answers"] = row * places + ops.maximum(flat["segment_ids"] - 1, 0)
        answers = 2 * places * ops.shape(inputs["token_ids"])[0]
        if not training:
            return self._read(inputs, flat, places, answers)
        laid_out = self.laid_out(flat)
        prediction = self.prediction(laid_out, training=True)
        nats = prediction.nats(laid_out["targets"], laid_out["weights"])
        of_answers, tokens = (_by_answer(of, laid_out, places, answers) for of in (nats, laid_out["weights"]))
        cost, rewards = self.preference(-of_answers, tokens, inputs["reference"])
        margin, weights = rewards[:, 0] - rewards[:, 1], inputs["pair_weights"]
        higher = 0.5 * (1.0 + ops.sign(margin))
        loss = PairLoss(*(ops.sum(weights * of) for of in (cost, higher, margin)))
        return loss if prediction.router_loss is None else RoutedPairLoss(*loss, prediction.router_loss)

    def _read(self, inputs: Mapping[str, Any], flat: Mapping[str, Any], places: int, answers: Any) -> dict[str, Any]:
        prediction = self.prediction(flat, training=False)
        weights, shape = flat["weights"], ops.shape(inputs["token_ids"])
        nats = prediction.nats(flat["targets"], weights)
        found = {"log_probabilities": -_by_answer(nats, flat, places, answers)}
        if "uniform" in inputs:
            drawn = prediction.drawn(ops.reshape(inputs["uniform"], ops.shape(weights)))
            found["drawn"] = ops.reshape(drawn, shape)
            found["drawn_nats"] = ops.reshape(prediction.nats(drawn, weights), shape)
        if "drawn" in inputs:
            drawn, before = (ops.reshape(inputs[name], ops.shape(weights)) for name in ("drawn", "drawn_nats"))
            gain = before - prediction.nats(drawn, weights)
            found["divergence"] = _by_answer(weights * (ops.expm1(gain) - gain), flat, places, answers)
        return found

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the batch's loss and keep it, with the margin of its rewards; see `Trainer.compute_loss`."""
        self.step_margin.update_state(y_pred.margin)
        return super().compute_loss(x, y, y_pred, sample_weight, training)


def _by_answer(of_positions: Any, flat: Mapping[str, Any], places: int, answers: Any) -> Any:
    """Return the sums over each answer of the batch, `(rows, 2, places)`, of a figure of each position."""
    # Padding is of no answer. Its figures are 0 where nothing is learned, but on no account may they be NaN.
    figures = ops.where(flat["weights"] > 0, ops.cast(of_positions, "float32"), 0.0)
    places_of = ops.reshape(flat["answers"], (-1, 1))
    return ops.reshape(ops.scatter(places_of, ops.reshape(figures, (-1,)), (answers,)), (-1, 2, places))


def read_pairs(
    trainer: PairTrainer,
    encoded: EncodedDocuments,
    pairs: PairRows,
    *,
    batch_size: int,
    further: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return what the model says of all pairs as it is.

    Args:
        trainer: the model.
        encoded: the documents.
        pairs: their rows.
        batch_size: rows at once.
        further: what else the trainer takes, `(rows, 2, sequence_length)`: `uniform`, to draw a token at each position;
            or the `drawn` tokens and `drawn_nats`, what they cost the reference.

    Returns:
        Figures of each answer, `(pairs, 2)`: `log_probabilities`, and `divergence` where there are drawn tokens, the
        sum over learned positions of an estimate of the divergence of the reference from the model; and figures of each
        position, `(rows, 2, sequence_length)`: `drawn` and `drawn_nats` where there is `uniform`.

    Source: the estimate is (r - 1) - log r, r the model's probability of a token that the reference drew over the
    reference's, of which the mean is the divergence; Schulman 2020, "Approximating KL divergence".
    """
    of_pairs: dict[str, NDArray[Any]] = {}
    of_rows: dict[str, NDArray[Any]] = {}
    for first, rows, places, inputs in _batches(encoded, pairs, batch_size):
        more = {name: _filled(of[first : first + rows], batch_size) for name, of in (further or {}).items()}
        no_weights = np.zeros(places.shape, np.float32)
        with quiet.several_models():
            found = trainer.predict_on_batch(inputs | more | {"pair_weights": no_weights})
        is_pair = places >= 0
        for name, values in found.items():
            array = local(values)
            if name in ("drawn", "drawn_nats"):
                of_rows.setdefault(name, np.zeros((len(pairs), *array.shape[1:]), array.dtype))
                of_rows[name][first : first + rows] = array[:rows]
            else:
                of_pairs.setdefault(name, np.zeros((len(encoded), 2)))
                of_pairs[name][places[is_pair]] = array.swapaxes(1, 2)[is_pair]
    return of_pairs, of_rows


def _batches(
    encoded: EncodedDocuments, pairs: PairRows, batch_size: int
) -> Iterator[tuple[int, int, NDArray[np.int64], dict[str, Any]]]:
    """Yield the first row of each batch, how many it has, the pair at each place, and what the model takes."""
    for first in range(0, len(pairs), batch_size):
        rows = range(first, min(first + batch_size, len(pairs)))
        inputs, places = inputs_of(encoded, pairs, rows, size=batch_size)
        yield first, len(rows), places, inputs


def _filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])
