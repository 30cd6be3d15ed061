"""Fits a pretrained tokenizer to a corpus: drops unused tokens, adds whole characters and frequent pieces.

What a `tokenizer.json` or a SentencePiece model says besides stays: how it normalizes and cuts a text, its special and
added tokens, its template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.chunks import portions
from kerasgen.tokens.json_codec import SPACE, JsonCodec
from kerasgen.tokens.json_vocabulary import JsonBpe, JsonUnigram
from kerasgen.tokens.pretokenization import GPT2, STAND_IN, SURROGATE, splitter
from kerasgen.tokens.pretrained import Codec, PretrainedTokenizer
from kerasgen.tokens.pretrained_files import restored, state_of
from kerasgen.tokens.sentencepiece_codec import SentencePieceCodec
from kerasgen.tokens.sentencepiece_vocabulary import SentencePieceVocabulary
from kerasgen.tokens.vocabulary import (
    MINIMUM_CHARACTER_COUNT,
    MINIMUM_PIECE_COUNT,
    MINIMUM_PIECE_SHARE,
    MOST_PIECES,
    PIECE_ROUNDS,
    AdaptedVocabulary,
    Texts,
    VocabularyUse,
    counted_pairs,
    use_of,
)


class EditableVocabulary(Protocol):
    """The pieces of a tokenizer of one kind, and how others are made of them."""

    @property
    def whole(self) -> Collection[int]:
        """Ids of tokens that no piece is made of, such as special and added ones and those of bytes."""
        ...

    def required(self, used: Collection[int]) -> set[int]:
        """Return the ids that must stay so that these are still made of a text, and any text can be written."""
        ...

    def reduced(self, ids: Sequence[int]) -> Codec:
        """Return the codec of these ids alone, numbered in this order."""
        ...

    def normalized(self, text: str) -> str:
        """Return what the tokenizer makes of a text before it looks for pieces."""
        ...

    def spelling(self, character: str) -> tuple[int, ...]:
        """Return the ids that a character becomes where it shall be one token; none where it shall stay."""
        ...

    def pair(self, left: int, right: int) -> bool:
        """Return whether these two, side by side, could be one piece: the tokenizer cuts them so, and not between."""
        ...

    def with_characters(self, counts: Mapping[str, int], total: int) -> tuple[Codec, list[tuple[int, ...]]]:
        """Return the codec that has these characters too, and for each of its ids the old ones that it is made of."""
        ...

    def with_pairs(self, pairs: Sequence[tuple[int, int, int]], total: int) -> tuple[Codec, list[tuple[int, ...]]]:
        """Return the codec that has these pairs (left, right and their count) as pieces too, and as above."""
        ...


@dataclass(frozen=True, eq=False)
class _Extended:
    tokenizer: PretrainedTokenizer
    sources: list[tuple[int, ...]]


def trim(tokenizer: PretrainedTokenizer, use: VocabularyUse) -> AdaptedVocabulary:
    """Return the tokenizer without the tokens that the texts don't need.

    Special and added tokens stay, every token that occurs, and what those are merged from. The texts encode to the same
    pieces as before. Other texts encode too: the pieces of all bytes stay, and where there are none, those of all
    single characters.

    Raises:
        TokenArgumentError: `use` is of another vocabulary, or the tokenizer is of a kind that can't be trimmed.
    """
    if len(use.counts) != tokenizer.vocabulary_size:
        raise TokenArgumentError(
            f"The use of {len(use.counts)} ids was counted, and the tokenizer has {tokenizer.vocabulary_size}. Count "
            "it with the same tokenizer."
        )
    vocabulary = editable(tokenizer)
    kept = sorted(vocabulary.required(np.flatnonzero(use.counts).tolist()) | set(tokenizer.special_tokens.values()))
    trimmed = _of_codec(tokenizer, vocabulary.reduced(kept))
    return AdaptedVocabulary(trimmed, tuple((n,) for n in kept), len(kept), use.tokens_per_character)


def extend(tokenizer: PretrainedTokenizer, texts: Texts) -> AdaptedVocabulary:
    """Return the tokenizer with whole characters and frequent pieces of the texts, and without what they don't need.

    Each frequent character that has no token of its own gets one. Then pairs of neighbours that occur often within a
    word become pieces, after everything that was merged before, or, in a Unigram, with the score of their frequency. A
    text without those characters and pieces is cut as before.

    Args:
        tokenizer: the old one.
        texts: gives the texts anew at each call.

    Raises:
        TokenArgumentError: the tokenizer is of a kind that can't be extended.
    """
    whole = _with_characters(tokenizer, texts())
    for _ in range(PIECE_ROUNDS):
        longer, use = _with_pairs(whole, texts())
        if longer is whole:
            break
        whole = longer
    else:
        use = use_of(texts(), whole.tokenizer)
    trimmed = trim(whole.tokenizer, use)
    sources = tuple(whole.sources[n] for (n,) in trimmed.sources)
    names, old = trimmed.tokenizer.vocabulary, tokenizer.vocabulary
    added = [token_id for name, token_id in names.items() if name not in old]
    return AdaptedVocabulary(trimmed.tokenizer, sources, min(added, default=len(sources)), use.tokens_per_character)


def editable(tokenizer: PretrainedTokenizer) -> EditableVocabulary:
    """Return the vocabulary of a tokenizer in the form in which it can be changed.

    Raises:
        TokenArgumentError: it is of a kind that can't be.
    """
    codec = tokenizer.codec
    if isinstance(codec, SentencePieceCodec):
        return SentencePieceVocabulary(codec)
    assert isinstance(codec, JsonCodec)
    return JsonUnigram(codec) if codec.model_kind == "Unigram" else JsonBpe(codec)


def _of_codec(tokenizer: PretrainedTokenizer, codec: Codec) -> PretrainedTokenizer:
    """Return the tokenizer of another codec that has the same special tokens."""
    changed = {"content": codec.content(), "further": dict(getattr(codec, "further", {}))}
    return restored(state_of(tokenizer) | changed)


def _with_characters(tokenizer: PretrainedTokenizer, texts: Iterable[str]) -> _Extended:
    vocabulary = editable(tokenizer)
    counts: Counter[str] = Counter()
    for portion in portions(texts):
        for text in portion:
            counts.update(vocabulary.normalized(SURROGATE.sub(STAND_IN, text)))
    missing = {
        character: count
        for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= MINIMUM_CHARACTER_COUNT and character not in (" ", SPACE) and vocabulary.spelling(character)
    }
    if not missing:
        return _Extended(tokenizer, [(n,) for n in range(tokenizer.vocabulary_size)])
    codec, sources = vocabulary.with_characters(missing, sum(counts.values()))
    return _Extended(_of_codec(tokenizer, codec), sources)


def _with_pairs(extended: _Extended, texts: Iterable[str]) -> tuple[_Extended, VocabularyUse]:
    """Add the neighbouring pairs that occur most within a word; the same is returned where there are none.

    The second value counts how the texts use the given tokenizer's ids.
    """
    tokenizer = extended.tokenizer
    size = tokenizer.vocabulary_size
    pairs, counts_of_ids, characters = counted_pairs(tokenizer, texts)
    total = int(counts_of_ids.sum())
    use, least = VocabularyUse(counts_of_ids, characters), max(MINIMUM_PIECE_COUNT, total * MINIMUM_PIECE_SHARE)
    vocabulary, is_word = editable(tokenizer), _Words(tokenizer)
    added: list[tuple[int, int, int]] = []
    names: set[str] = set()
    for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        if count < least or len(added) == MOST_PIECES:
            break
        left, right = divmod(pair, size)
        name = tokenizer.id_to_token(left) + tokenizer.id_to_token(right)
        if name in names or {left, right} & set(vocabulary.whole):
            continue
        if is_word(left, right) and vocabulary.pair(left, right):
            added.append((left, right, count))
            names.add(name)
    if not added:
        return extended, use
    codec, sources = vocabulary.with_pairs(added, total)
    made_of = [tuple(old for part in parts for old in extended.sources[part]) for parts in sources]
    return _Extended(_of_codec(tokenizer, codec), made_of), use


class _Words:
    """Tells whether two pieces stand within one word of GPT-2's cut; digits stay apart where each is its own token."""

    def __init__(self, tokenizer: PretrainedTokenizer) -> None:
        self._tokenizer = tokenizer
        self._cut = splitter(GPT2)
        usual = set(tokenizer.vocabulary.values()) - set(tokenizer.special_tokens.values())
        self._joins_digits = any(_digits(self._text(token_id)) > 1 for token_id in usual)

    def __call__(self, left: int, right: int) -> bool:
        text = self._text(left) + self._text(right)
        spelled = self._tokenizer.token_bytes(left) + self._tokenizer.token_bytes(right)
        if text.encode() != spelled or len(self._cut.pre_tokenize_str(text)) != 1:
            return False
        return self._joins_digits or _digits(text) <= 1

    def _text(self, token_id: int) -> str:
        return self._tokenizer.token_bytes(token_id).decode("utf-8", "ignore")


def _digits(text: str) -> int:
    return sum(character.isnumeric() for character in text)
