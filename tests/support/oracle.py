"""Samplers as their papers and docstrings say it: one row, one token at a time, in Python floats, and slowly.

Written from the definitions and without a look at `kerasgen.samplers.arithmetic`, which is checked against it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

Row = Sequence[float]
# The log-probabilities of the next token after these tokens.
NextLogprobs = Callable[[tuple[int, ...]], Row]


def probabilities(logits: Row) -> list[float]:
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    return [power / math.fsum(powers) for power in powers]


def repetition_penalty(logits: Row, text: Sequence[int], penalty: float) -> list[float]:
    return [
        (logit / penalty if logit > 0 else logit * penalty) if token in set(text) else logit
        for token, logit in enumerate(logits)
    ]


def would_repeat(text: Sequence[int], size: int) -> set[int]:
    """The tokens after which the text's last n-gram has stood in the text before."""
    ngrams = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
    return (
        {token for token in range(max(text, default=0) + 1) if tuple([*text, token][-size:]) in ngrams}
        if (len(text) >= size - 1)
        else set()
    )


def top_k(logits: Row, k: int) -> set[int]:
    return set(sorted(range(len(logits)), key=lambda token: (-logits[token], token))[:k])


def top_p(logits: Row, p: float) -> tuple[set[int], list[float]]:
    """The nucleus, and the sums at whose edges rounding could decide."""
    likely = probabilities(logits)
    kept: set[int] = set()
    edges = []
    for token in sorted(range(len(logits)), key=lambda token: (-logits[token], token)):
        edges.append(math.fsum(likely[other] for other in kept))
        if kept and edges[-1] >= p:
            break
        kept.add(token)
    return kept, edges


def min_p(logits: Row, p: float) -> set[int]:
    likely = probabilities(logits)
    return {token for token, probability in enumerate(likely) if probability >= p * max(likely)}


def draw(logits: Row, uniform: float) -> tuple[int, list[float]]:
    """The first id whose cumulative probability passes `uniform`, and all cumulative probabilities."""
    sums = list(itertools.accumulate(probabilities(logits)))
    return next(token for token, total in enumerate(sums) if total > uniform), sums


def cosine(one: Row, other: Row) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def contrastive_score(probability: float, candidate: Row, context: Sequence[Row], alpha: float) -> float:
    return (1 - alpha) * probability - alpha * max(cosine(candidate, other) for other in context)


def every_text(next_logprobs: NextLogprobs, end: int, most: int) -> list[tuple[tuple[int, ...], float]]:
    """Every text that ends within `most` tokens or is cut there, with its total log-probability."""
    found = []
    growing: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while growing:
        text, total = growing.pop()
        for token, logprobs in enumerate(next_logprobs(text)):
            longer = ((*text, token), total + logprobs)
            (found if token == end or len(longer[0]) == most else growing).append(longer)
    return found


def beam_search(
    next_logprobs: NextLogprobs,
    end: int,
    most: int,
    num_beams: int,
    length_penalty: float,
    best: int,
    early_stopping: bool,
) -> list[tuple[tuple[int, ...], float]]:
    """The best texts with their scores, as `kerasgen.samplers.lookahead.Beam` describes the search."""

    def scored(text: tuple[int, ...], total: float) -> tuple[tuple[int, ...], float]:
        return text, total / len(text) ** length_penalty

    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[tuple[int, ...], float]] = []
    for length in range(1, most + 1):
        candidates = [
            ((*text, token), total + logprobs)
            for text, total in live
            for token, logprobs in enumerate(next_logprobs(text))
        ]
        candidates.sort(key=lambda candidate: -candidate[1])
        finished += [scored(*candidate) for candidate in candidates[:num_beams] if candidate[0][-1] == end]
        finished = sorted(finished, key=lambda candidate: -candidate[1])[:num_beams]
        live = [candidate for candidate in candidates if candidate[0][-1] != end][:num_beams]
        if early_stopping and len(finished) == num_beams:
            return finished[:best]
        lengths = range(length + 1, most + 1)
        hopes = [total / n**length_penalty for _, total in live for n in lengths]
        if length < most and len(finished) >= best and all(finished[best - 1][1] >= hope for hope in hopes):
            return finished[:best]
    finished += [scored(*candidate) for candidate in live]
    return sorted(finished, key=lambda candidate: -candidate[1])[:best]


def diverse_beam_search(
    next_logprobs: NextLogprobs, end: int, most: int, size: int, groups: int, penalty: float, best: int
) -> list[tuple[tuple[int, ...], float]]:
    """The best texts of all groups with their log-probabilities, as `kerasgen.samplers.lookahead.Beam` describes them.

    At each step the groups choose in turn; a token costs `penalty` for each text of the groups before that took it.
    """
    live: list[list[tuple[tuple[int, ...], float]]] = [[((), 0.0)] for _ in range(groups)]
    finished: list[list[tuple[tuple[int, ...], float]]] = [[] for _ in range(groups)]
    for _ in range(most):
        taken: list[int] = []
        for group in range(groups):
            candidates = [
                (total + logprobs - penalty * taken.count(token), (*text, token), total + logprobs)
                for text, total in live[group]
                for token, logprobs in enumerate(next_logprobs(text))
            ]
            candidates.sort(key=lambda candidate: -candidate[0])
            finished[group] += [(text, total) for _, text, total in candidates[:size] if text[-1] == end]
            finished[group] = sorted(finished[group], key=lambda one: -one[1])[:size]
            live[group] = [(text, total) for _, text, total in candidates if text[-1] != end][:size]
            taken += [text[-1] for text, _ in live[group]]
    every = [sorted(done + going, key=lambda one: -one[1])[:size] for done, going in zip(finished, live, strict=True)]
    return sorted(itertools.chain.from_iterable(every), key=lambda one: -one[1])[:best]
