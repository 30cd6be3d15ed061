"""Prompt lookup: what followed the text's last tokens where they stood before is proposed as what comes next.

Source: Saxena 2023, "Prompt lookup decoding"; an n-gram of the text takes the place of a draft model.
"""

from __future__ import annotations

from collections.abc import Sequence

from kerasgen.generation.proposal_length import ProposalLength
from kerasgen.generation.utf8_states import Utf8States

_NGRAM_SIZES = (3, 2)
# Tokens that a step's time must bring. What was read several tokens at once is read again before steps are taken in
# blocks, and each choice of a sampler that draws is made several times to see that it is certain: at 1.8, a drawn text
# of which 21 of 75 proposed tokens were accepted took a tenth longer (see the log).
_LEAST, _LEAST_DRAWN = 1.35, 2.5
_PRIOR = (1.0, 1.5)
_LOOKS_FROM = 0.3


class PromptLookup:
    """Proposals for one text, made where the text's n-grams foretell its tokens.

    What they foretell is compared with each token that the text gets, proposed or not: that costs no pass of the
    model, and a text that doesn't repeat itself is left alone.

    Args:
        num_tokens: proposed at once, at most; at least 1.
        begun: tokens of the prompt, which say nothing of how often the text repeats what stands before.
        draws: whether the sampler draws.

    Attributes:
        proposed: tokens proposed so far.
        accepted: of these, tokens that the sampler chose too.
        pause: 0; a proposal may come with each token.
    """

    pause = 0

    def __init__(self, num_tokens: int, begun: int = 0, *, draws: bool = False) -> None:
        least = _LEAST_DRAWN if draws else _LEAST
        self._proposal_length = ProposalLength(num_tokens, cost=0.0, least=least, prior=_PRIOR)
        self._begun = begun
        self._followed: dict[tuple[int, ...], int] = {}  # n-gram to the place after it, the latest
        self._indexed = 0
        self.proposed = self.accepted = 0

    @property
    def looks(self) -> bool:
        """Whether a proposal is likely to come with one of the next tokens."""
        return self._proposal_length.rate >= _LOOKS_FROM

    def propose(self, text: Sequence[int], room: int, utf8: Utf8States | None = None) -> list[int]:
        """Return the tokens that may come next; see `kerasgen.generation.proposing.Proposer`."""
        for place in range(self._indexed, len(text)):
            foretold = self._place_after(text, place)
            if foretold is not None and place >= self._begun:
                is_right = text[foretold] == text[place]
                self._proposal_length.observe(int(is_right), int(not is_right))
            for size in _NGRAM_SIZES:  # `place` follows an n-gram that ends before it
                if place >= size:
                    self._followed[tuple(text[place - size : place])] = place
        self._indexed = len(text)
        foretold = self._place_after(text, len(text))
        if foretold is None:
            return []
        found: list[int] = []
        period = len(text) - foretold  # where the text repeats itself this fast, so does what is proposed
        for n in range(min(self._proposal_length.width(), room)):
            found.append(text[foretold + n] if n < period else found[n - period])
        return found

    def learn(self, proposed: int, accepted: int) -> None:
        """Count what came of a proposal; how many to propose next is seen from the text."""
        self.proposed += proposed
        self.accepted += accepted

    def rest(self, steps: int) -> None:
        """Count steps that were taken without a proposal."""

    def _place_after(self, text: Sequence[int], place: int) -> int | None:
        """The place after the longest n-gram that ends before `place` and stood before, or None."""
        known = (self._followed.get(tuple(text[place - size : place])) for size in _NGRAM_SIZES if place >= size)
        return next((found for found in known if found is not None), None)
