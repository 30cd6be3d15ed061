"""Losses over pairs of a better and a worse answer, from log-probabilities of both. Imports Keras: import it late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from keras import ops

Loss: TypeAlias = Literal["sigmoid", "ipo", "orpo", "simpo"]
WITHOUT_REFERENCE: Final = ("orpo", "simpo")
"""Losses that look at the tuned model alone."""

_NEAREST_TO_CERTAIN = -1e-6  # the mean log-probability of a token above which odds are not told apart in float32


class PairCosts(NamedTuple):
    """Losses of each pair, all float32.

    Args:
        loss: `(rows, places)`.
        rewards: `(rows, 2, places)`, of the better and of the worse answer: `beta` times what the loss compares.
    """

    loss: Any
    rewards: Any


@dataclass(frozen=True)
class PreferenceLoss:
    """One of the losses.

    Args:
        kind: `"sigmoid"` is DPO's own; `"ipo"`, `"orpo"` and `"simpo"`.
        beta: as in the tuner, as are the next two.
        label_smoothing: as above.
        gamma: as above.

    Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; Mitchell 2023 for label smoothing; Azar et al. 2023
    (arXiv 2310.12036), equation 17, over mean log-probabilities; Hong et al. 2024 (arXiv 2403.07691), equations 6 and
    7; Meng et al. 2024 (arXiv 2405.14734), equation 6.
    """

    kind: Loss
    beta: float
    label_smoothing: float = 0.0
    gamma: float = 0.0

    def __call__(self, log_probabilities: Any, tokens: Any, reference: Any) -> PairCosts:
        """Return what pairs cost; of a place without a pair the numbers are finite and mean nothing.

        Args:
            log_probabilities: float32 `(rows, 2, places)`; of all learned tokens of an answer together.
            tokens: float32 `(rows, 2, places)`; how many those are, 0 at a place without a pair.
            reference: float32 `(rows, 2, places)`; log-probabilities under the reference.
        """
        is_pair = tokens > 0
        count = ops.maximum(tokens, 1.0)
        if self.kind == "sigmoid":
            rewards = self.beta * (log_probabilities - reference)
            return PairCosts(self._smoothed(rewards[:, 0] - rewards[:, 1]), rewards)
        if self.kind == "ipo":
            gains = (log_probabilities - reference) / count
            return PairCosts(ops.square(gains[:, 0] - gains[:, 1] - 0.5 / self.beta), self.beta * gains)
        mean = ops.where(is_pair, log_probabilities / count, -1.0)
        rewards = self.beta * mean
        if self.kind == "simpo":
            return PairCosts(self._smoothed(rewards[:, 0] - rewards[:, 1] - self.gamma), rewards)
        mean = ops.minimum(mean, _NEAREST_TO_CERTAIN)
        odds = mean - ops.log(-ops.expm1(mean))
        return PairCosts(-mean[:, 0] - self.beta * ops.log_sigmoid(odds[:, 0] - odds[:, 1]), rewards)

    def _smoothed(self, margin: Any) -> Any:
        """The cost of a margin where a pair is the wrong way round with the probability `label_smoothing`."""
        wrong = self.label_smoothing
        return -(1.0 - wrong) * ops.log_sigmoid(margin) - wrong * ops.log_sigmoid(-margin)
