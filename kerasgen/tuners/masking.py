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
            up to ten tokens, 4.5 in the mean; what goes beyond a piece's end or the rate is cut off.
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
            count = max(1, round(self.rate * len(candidates)))
            find = _spans if self.kind == "spans" else self._chosen
            chosen, unit = find(block, row, candidates, draws, count)
            weights[row, chosen] = block.weights[row, chosen]
            # Of a span all tokens are masked alike, of a word each by itself.
            luck = draws.random(count)[unit] if self.kind == "spans" else draws.random(len(chosen))
            others = self._others[draws.integers(0, len(self._others), len(chosen))]
            kept = block.token_ids[row, chosen]
            replaced = np.where(luck < _MASKED, self.mask, np.where(luck < _MASKED + _RANDOM, others, kept))
            read[row, chosen] = replaced.astype(np.int32)
        return MaskedTokens(read, block.token_ids, weights)

    def _chosen(
        self, block: MaskedBlock, row: int, candidates: NDArray[np.int64], draws: np.random.Generator, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return so many places of a row, and the number of the group of each: a token, or a word.

        A word that is too large is left out, but for the first, so that something is to be predicted in every row.
        """
        if self.kind == "tokens":
            groups = np.split(candidates, len(candidates))
        else:
            begins = _begins_piece(block, row, candidates) | self._begins[block.token_ids[row, candidates[1:]]]
            groups = np.split(candidates, np.flatnonzero(begins) + 1)
        places: list[int] = []
        units: list[int] = []
        for unit, at in enumerate(draws.permutation(len(groups)).tolist()):
            if places and len(places) + len(groups[at]) > count:
                continue
            places += groups[at].tolist()
            units += [unit] * len(groups[at])
            if len(places) >= count:
                break
        order = np.argsort(places, kind="stable")
        return np.asarray(places, np.int64)[order], np.asarray(units, np.int64)[order]


def _begins_piece(block: MaskedBlock, row: int, candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return of all candidates but the first whether it is no neighbour of the one before, or of another piece."""
    is_apart: NDArray[np.bool_] = np.diff(candidates) != 1
    is_other: NDArray[np.bool_] = np.diff(block.segment_ids[row, candidates]) != 0
    return is_apart | is_other


def _spans(
    block: MaskedBlock, row: int, candidates: NDArray[np.int64], draws: np.random.Generator, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return so many places of a row in spans, and the number of the span of each.

    A span may begin before a piece or end behind it, where it is cut off, so that all places are in as many spans.
    """
    edges = (np.flatnonzero(_begins_piece(block, row, candidates)) + 1).tolist()
    pieces = np.split(candidates, edges)
    sizes = np.diff([0, *edges, len(candidates)])
    units: dict[int, int] = {}
    unit = 0
    while len(units) < count:
        length = min(int(draws.geometric(_SPAN_ENDS)), _LONGEST_SPAN, count - len(units))
        ends = np.cumsum(sizes + length - 1)
        at = int(draws.integers(ends[-1]))
        piece = int(np.searchsorted(ends, at, side="right"))
        first = at - int(ends[piece] - sizes[piece])  # as far before the piece as all but one token
        new = [place for place in pieces[piece][max(first, 0) : first + length].tolist() if place not in units]
        units |= dict.fromkeys(new, unit)
        unit += bool(new)
    places = sorted(units)
    return np.asarray(places, np.int64), np.asarray([units[place] for place in places], np.int64)


def _begins_word(token: bytes) -> bool:
    """Return whether a token begins a word: with a space, a character that is none of a word, or a Chinese one."""
    text = token.decode("utf-8", "replace")
    first = text[:1]
    return not first or is_chinese(first) or (unicodedata.category(first)[0] not in "LMN" and first != "\ufffd")
