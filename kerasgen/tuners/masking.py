"""Draws which tokens of a batch are masked, and by what: anew in each epoch, and the same for the same seed.

Imports NumPy: import it late.

Source: Devlin et al. 2019 (arXiv 1810.04805) for 15 % and 80/10/10, and its later code for whole words; Joshi et al.
2020 (arXiv 1907.10529) for spans.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.json_codec import is_chinese
from kerasgen.tokens.masked_packing import MaskedBlock

Kind: TypeAlias = Literal["tokens", "whole_words", "spans"]
KINDS: Final = ("tokens", "whole_words", "spans")
RATE: Final = 0.15
_MASKED, _RANDOM = 0.8, 0.1  # of the tokens that are to be predicted; the others stay
_SPAN_ENDS, _LONGEST_SPAN = 0.2, 10  # of a geometric distribution, in tokens


@dataclass(frozen=True, eq=False)
class MaskedTokens:
    """A batch with masks; every array is `(rows, length)`.

    Args:
        token_ids: int32; what the model reads.
        targets: int32; what stood there.
        weights: float32; how much each place counts, 0 where nothing is to be predicted.
    """

    token_ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]


class Masking:
    """How the tokens of a vocabulary are masked.

    Args:
        tokenizer: with a mask token.
        kind: what is chosen together: `"tokens"`, each by itself; `"whole_words"`, all tokens of a word; `"spans"` of
            up to ten tokens, 3.8 in the mean.
        rate: the share of the tokens that are to be predicted, 0 to 1; of a row with few tokens, one at least.
    """

    def __init__(self, tokenizer: Tokenizer, kind: Kind = "tokens", rate: float = RATE) -> None:
        self.kind, self.rate = kind, rate
        self.mask = int(tokenizer.mask_token_id)  # type: ignore[attr-defined]
        special = set(tokenizer.special_tokens.values())
        ids = [token_id for token_id in range(tokenizer.vocabulary_size) if token_id not in special]
        self._others = np.asarray(ids, np.int32)
        self._begins = np.zeros(tokenizer.vocabulary_size, np.bool_)
        if kind == "whole_words":
            for token_id in ids:
                self._begins[token_id] = _begins_word(tokenizer.token_bytes(token_id))

    def draw(self, block: MaskedBlock, seeds: list[list[int]]) -> MaskedTokens:
        """Return the rows of a block with masks.

        Args:
            block: the rows.
            seeds: of each row, whole numbers; a row's masks depend on nothing else.
        """
        read, weights = block.token_ids.copy(), np.zeros_like(block.weights)
        for row, seed in enumerate(seeds):
            candidates = np.flatnonzero(block.weights[row] > 0)
            if not len(candidates):
                continue
            draws = np.random.default_rng(seed)
            groups = self._groups(block, row, candidates, draws)
            chosen, unit = _chosen(groups, max(1, round(self.rate * len(candidates))))
            weights[row, chosen] = block.weights[row, chosen]
            # Of a span all tokens are masked alike, of a word each by itself.
            luck = draws.random(len(groups))[unit] if self.kind == "spans" else draws.random(len(chosen))
            others = self._others[draws.integers(0, len(self._others), len(chosen))]
            kept = block.token_ids[row, chosen]
            replaced = np.where(luck < _MASKED, self.mask, np.where(luck < _MASKED + _RANDOM, others, kept))
            read[row, chosen] = replaced.astype(np.int32)
        return MaskedTokens(read, block.token_ids, weights)

    def _groups(
        self, block: MaskedBlock, row: int, candidates: NDArray[np.int64], draws: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Return the places that are chosen together, in the order in which they are asked for."""
        if self.kind == "tokens":
            return [candidates[[at]] for at in draws.permutation(len(candidates))]
        # A group ends where the next place is not the neighbour, or is of another piece.
        after = np.diff(candidates) != 1
        after |= np.diff(block.segment_ids[row, candidates]) != 0
        if self.kind == "whole_words":
            after |= self._begins[block.token_ids[row, candidates[1:]]]
            groups = np.split(candidates, np.flatnonzero(after) + 1)
            return [groups[at] for at in draws.permutation(len(groups))]
        runs = np.append(0, np.cumsum(after))
        groups = []
        lengths = np.minimum(draws.geometric(_SPAN_ENDS, len(candidates)), _LONGEST_SPAN)
        for at, length in zip(draws.permutation(len(candidates)).tolist(), lengths.tolist(), strict=True):
            stop = at + length
            groups.append(candidates[at:stop][runs[at:stop] == runs[at]])
        return groups


def _chosen(groups: list[NDArray[np.int64]], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return places of groups until there are so many, and the group of each; a group that is too large is left out.

    The first group is taken however large it is, so that something is to be predicted in every row.
    """
    places: list[int] = []
    units: list[int] = []
    taken: set[int] = set()
    for unit, group in enumerate(groups):
        new = [place for place in group.tolist() if place not in taken]
        if taken and len(taken) + len(new) > count:
            continue
        places += new
        units += [unit] * len(new)
        taken.update(new)
        if len(taken) >= count:
            break
    order = np.argsort(places, kind="stable")
    return np.asarray(places, np.int64)[order], np.asarray(units, np.int64)[order]


def _begins_word(token: bytes) -> bool:
    """Return whether a token begins a word: with a space, a character that is none of a word, or a Chinese one."""
    text = token.decode("utf-8", "replace")
    first = text[:1]
    return not first or is_chinese(first) or (unicodedata.category(first)[0] not in "LMN" and first != "\ufffd")
