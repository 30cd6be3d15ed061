"""Tests by chi-square whether a sampler drew tokens with the probabilities that the logits give.

The probabilities are computed here from the samplers' definitions, in float64, and share no code with what drew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.exporters.parity.comparison import PROBE, RAW
from kerasgen.samplers.resolving import resolve
from kerasgen.samplers.sampling import MinP, TopK, TopP
from kerasgen.tokens.base import Tokenizer

DRAWS = 200
_LEAST_EXPECTED = 5.0  # draws of a cell below which the statistic has no chi-square distribution (Cochran 1954)
_IMPOSSIBLE = 1e-6  # expected draws
_SLACK = 1e-4  # of a probability, by which float32 may draw the edge of a truncation elsewhere
_FARTHEST = 4.75  # standard deviations of a normal distribution beyond which one sample in a million lies


def draws(tokenizer: Tokenizer, sampler: str) -> dict[str, Any]:
    """Return the arguments of a call that draws one prompt's next token many times, each independently."""
    prompt = tokenizer.encode(PROBE)[:2]
    return {"prompts": [prompt] * DRAWS, "max_new_tokens": 1, "sampler": sampler, "seed": 3} | RAW


def figures(drawn: Sequence[Sequence[int]], logits: npt.NDArray[Any], sampler: str) -> dict[str, Any]:
    """Measure how far drawn tokens are from the sampler's probabilities.

    Args:
        drawn: one id each, as `draws` asks for them.
        logits: float `(vocabulary_size,)`, before the token that was drawn.
        sampler: the sampler that drew.

    Returns:
        `draws`, `chi_square` (infinite where a token was drawn that can't be), its degrees of freedom, and whether so
        far away lies more than one sample in a million, `distributed`.
    """
    counts = np.bincount([ids[0] for ids in drawn], minlength=len(logits))
    tried = [_distance(counts, probabilities(logits, sampler, slack=slack)) for slack in (0.0, -_SLACK, _SLACK)]
    chi_square, freedom = min(tried, key=lambda distance: _deviations(*distance))
    return {
        "draws": len(drawn),
        "chi_square": chi_square,
        "degrees_of_freedom": freedom,
        "distributed": _deviations(chi_square, freedom) < _FARTHEST,
    }


def probabilities(logits: npt.NDArray[Any], sampler: str, *, slack: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the probability with which a sampler draws each token, `(vocabulary_size,)`; 0 for excluded tokens.

    Args:
        logits: float `(vocabulary_size,)`.
        sampler: `random`, `top_k`, `top_p` or `min_p`, its settings with it.
        slack: added to `p`, or to the share of it.
    """
    spec: Any = resolve(sampler)
    scaled = logits.astype(np.float64) / spec.temperature
    powers = np.exp(scaled - scaled.max())
    likely = powers / powers.sum()
    order = np.argsort(-scaled, kind="stable")
    is_kept = np.ones(len(likely), dtype=np.bool_)
    if isinstance(spec, TopK):
        is_kept[order[spec.k :]] = False
    elif isinstance(spec, TopP):
        is_kept[order] = np.cumsum(likely[order]) - likely[order] < spec.p + slack
    elif isinstance(spec, MinP):
        is_kept = powers >= spec.p * (1 + slack)
    drawable: npt.NDArray[np.float64] = np.where(is_kept, likely, 0.0)
    drawable /= drawable.sum()
    return drawable


def _distance(counts: npt.NDArray[Any], likely: npt.NDArray[np.float64]) -> tuple[float, int]:
    """Return chi-square and its degrees of freedom; tokens of low expected counts are pooled."""
    wanted = counts.sum() * likely
    if counts[wanted < _IMPOSSIBLE].any():
        return math.inf, 1
    order = np.argsort(-wanted, kind="stable")
    often = int((wanted >= _LEAST_EXPECTED).sum())
    cells = [(counts[place], wanted[place]) for place in order[:often]]
    pooled = (counts[order[often:]].sum(), wanted[order[often:]].sum())
    if pooled[1] >= _LEAST_EXPECTED or not cells:
        cells.append(pooled)
    else:
        cells[-1] = (cells[-1][0] + pooled[0], cells[-1][1] + pooled[1])
    return float(sum((count - expected) ** 2 / expected for count, expected in cells)), len(cells) - 1


def _deviations(chi_square: float, freedom: int) -> float:
    """Return chi-square as standard deviations of a normal distribution (Wilson and Hilferty 1931)."""
    if math.isinf(chi_square):
        return math.inf
    if not freedom:  # one cell, in which every draw lies
        return 0.0
    part = 2 / (9 * freedom)
    return float(((chi_square / freedom) ** (1 / 3) - (1 - part)) / math.sqrt(part))
