"""Samplers that look beyond one step's logits: beam search and contrastive search."""

from __future__ import annotations

from dataclasses import dataclass

from kerasgen.bounds import FiniteFloat, NonNegativeFloat, PositiveInt, Share
from kerasgen.samplers.base import SamplerSpec, require


@dataclass(frozen=True)
class Beam(SamplerSpec):
    """Beam search: keep the `num_beams` best texts at each step, and return the best one.

    A text that generates the end token is finished: it keeps its tokens and its score. The score is the sum of the
    log-probabilities of the generated tokens, the end token with them, divided by their number to the power of
    `length_penalty`. Log-probabilities are of the distribution after penalties, exclusions and temperature. Texts
    that reach the length limit compete unfinished. An end token is taken only where it is among the `num_beams` best
    continuations of its step, as in transformers, so that one beam with `early_stopping` is greedy search.

    Args:
        num_beams: texts kept at each step; at least 1.
        length_penalty: 0 compares sums, which favours short texts; 1 compares means; more favours long ones.
        num_return_sequences: how many of the best `generate_ids` returns; at most `num_beams`.
        early_stopping: True stops a search once `num_beams` texts are finished. False stops it once no unfinished
            text could still come among the best `num_return_sequences`, however it went on, which loses nothing.
        num_beam_groups: the beams are divided into so many groups that search one after the other at each step; 1 is
            plain beam search.
        diversity_penalty: nats that a token loses in a group's choice for each time that an earlier group took it in
            the same step. Scores are without it. At least 0.

    Source: Vijayakumar et al. 2018, "Diverse beam search", with Hamming diversity (section 5.1).
    """

    num_beams: PositiveInt = 5
    length_penalty: FiniteFloat = 1.0
    num_return_sequences: PositiveInt = 1
    early_stopping: bool = False
    num_beam_groups: PositiveInt = 1
    diversity_penalty: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.num_return_sequences <= self.num_beams,
            f"`num_return_sequences` must be from 1 to num_beams ({self.num_beams})",
            f"num_return_sequences={self.num_return_sequences!r}",
        )
        require(
            isinstance(self.early_stopping, bool),
            "`early_stopping` must be True or False",
            f"early_stopping={self.early_stopping!r}",
        )
        require(
            self.num_beams % self.num_beam_groups == 0,
            f"`num_beam_groups` must be a whole number that divides num_beams ({self.num_beams})",
            f"num_beam_groups={self.num_beam_groups!r}",
        )


@dataclass(frozen=True)
class Contrastive(SamplerSpec):
    """Contrastive search: choose the likely token that is least like the text so far (Su et al. 2022, section 4.2).

    Of the `k` likeliest tokens it takes the one with the highest `(1 - alpha) * probability - alpha * likeness`, where
    likeness is the greatest cosine between the token's hidden state and those of all tokens before it, the start
    token's with them. It draws nothing, so the seed does not matter.

    Args:
        k: candidates at each step; at least 1; 1 is greedy search.
        alpha: from 0 to 1; 0 is greedy search.
    """

    k: PositiveInt = 5
    alpha: Share = 0.6
