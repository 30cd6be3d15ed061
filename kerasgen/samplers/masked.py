"""Ways in which a masked language model writes a text: mask-predict and Gibbs sampling."""

from __future__ import annotations

from dataclasses import dataclass

from kerasgen.bounds import NonNegativeInt, PositiveInt
from kerasgen.samplers.base import SamplerSpec


@dataclass(frozen=True)
class MaskPredict(SamplerSpec):
    """Mask-predict: predict all tokens at once, then the least certain ones again (Ghazvininejad et al. 2019).

    Of a text of n tokens and T iterations, iteration t leaves the n (T - t) / T tokens masked whose probabilities were
    the lowest, and predicts them anew from the others.

    Args:
        iterations: passes of the model over a text, at least 1.
        k: each token is drawn among so many of the likeliest, at least 1; 1 takes the likeliest, as in the paper.
    """

    iterations: PositiveInt = 10
    k: PositiveInt = 1


@dataclass(frozen=True)
class Gibbs(SamplerSpec):
    """Gibbs sampling: draw one token after another, given all other tokens of the text (Wang and Cho 2019).

    A text begins as `MaskPredict` leaves it after one iteration, and a sweep draws each of its tokens once, in an order
    that the seed decides.

    Args:
        sweeps: over the text, at least 1; each takes as many passes of the model as there are tokens.
        k: each token is drawn among so many of the likeliest; 0 for the whole distribution.
    """

    sweeps: PositiveInt = 5
    k: NonNegativeInt = 0
