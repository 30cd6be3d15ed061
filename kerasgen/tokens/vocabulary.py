"""Fits a vocabulary to a corpus: drops unused tokens, adds whole characters and frequent pieces.

The result is an ordinary byte-level BPE, a vocabulary and its merges, that knows all 256 bytes: any text still encodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.chunks import portions
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER, SURROGATE, splitter, to_characters

if TYPE_CHECKING:
    from kerasgen.tokens.pretrained import PretrainedTokenizer

Vocabulary: TypeAlias = Literal["keep", "trim", "extend", "auto"]
Texts: TypeAlias = Callable[[], Iterable[str]]

# A character that occurs less often stays bytes: its row would hardly be trained.
MINIMUM_CHARACTER_COUNT = 3
# A piece must be a five-thousandth of all tokens, and occur a hundred times, to earn a row.
MINIMUM_PIECE_SHARE = 1 / 5_000
MINIMUM_PIECE_COUNT = 100
MOST_PIECES = 2_048
PIECE_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class AdaptedVocabulary:
    """A tokenizer made from another one, and where each of its ids comes from.

    Args:
        tokenizer: the new one. Its ids have no holes; those of the old tokens that stayed come first, in their order.
            In a Unigram of a `tokenizer.json`, tokens that were added beyond its pieces stand behind the new ones.
        sources: for each new id, the old ids it is made of: the same token's alone where there was one.
        first_added: the first id of a token that the old tokenizer did not have; the vocabulary's size if all were.
        tokens_per_character: the number of tokens per character of the texts that it was made for.
    """

    tokenizer: ByteLevelBPE | PretrainedTokenizer
    sources: tuple[tuple[int, ...], ...]
    first_added: int
    tokens_per_character: float


@dataclass(frozen=True, eq=False)
class VocabularyUse:
    """Counts of each id in a corpus.

    Args:
        counts: int64 `(vocabulary_size,)`.
        characters: Unicode code points of the texts.
    """

    counts: NDArray[np.int64]
    characters: int

    @property
    def used(self) -> int:
        """Number of ids that occur."""
        return int((self.counts > 0).sum())

    @property
    def tokens_per_character(self) -> float:
        """Tokens that a character costs on average; NaN without texts."""
        return float(self.counts.sum()) / self.characters if self.characters else float("nan")


def use_of(texts: Iterable[str], tokenizer: Tokenizer) -> VocabularyUse:
    """Return how often the texts use each id, read once, a thousand at a time."""
    counts = np.zeros(tokenizer.vocabulary_size, np.int64)
    characters = 0
    for portion in portions(texts):
        for ids in tokenizer.encode_batch(portion):
            counts += np.bincount(np.asarray(ids, np.int64), minlength=len(counts))
        characters += sum(map(len, portion))
    return VocabularyUse(counts=counts, characters=characters)


def trim(tokenizer: ByteLevelBPE, use: VocabularyUse) -> AdaptedVocabulary:
    """Return the tokenizer without the tokens that the texts don't need.

    All bytes, special and added tokens stay, every token that occurs, and what those are merged from. The texts encode
    to the same pieces as before, for each merge that made them is still there, in the same order; every other text
    encodes too, to more and shorter pieces.

    Raises:
        TokenArgumentError: `use` is of another vocabulary.
    """
    if len(use.counts) != tokenizer.vocabulary_size:
        raise TokenArgumentError(
            f"The use of {len(use.counts)} ids was counted, and the tokenizer has {tokenizer.vocabulary_size}. Count "
            "it with the same tokenizer."
        )
    used = np.flatnonzero(use.counts).tolist()
    names = {tokenizer.id_to_token(token_id) for token_id in used}
    return _trimmed(tokenizer, tokenizer, names, use.tokens_per_character)


def extend(tokenizer: ByteLevelBPE, texts: Texts) -> AdaptedVocabulary:
    """Return the tokenizer with whole characters and frequent pieces of the texts, and without what they don't need.

    The bytes of each frequent character that is not one token are merged before anything else, from left to right, so
    that it is exactly one token in any text, as `whole_character_bpe` does it. Then pairs of neighbours that occur
    often within a word are merged, after everything else.

    Args:
        tokenizer: the old one.
        texts: gives the texts anew at each call.
    """
    whole = _with_characters(tokenizer, texts())
    for _ in range(PIECE_ROUNDS):
        longer, use = _with_pieces(whole, texts())
        if longer is whole:  # nothing more to add, and what it uses was counted on the way
            break
        whole = longer
    else:
        use = use_of(texts(), whole)
    used = np.flatnonzero(use.counts).tolist()
    names = {whole.id_to_token(token_id) for token_id in used}
    return _trimmed(whole, tokenizer, names, use.tokens_per_character)


def merges_of(token: str, ranks: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    """Return the merges, in order, that make one token of its bytes; fewer if they don't.

    Args:
        token: in GPT-2's printable characters.
        ranks: each merge's place.
    """
    parts = list(token)
    made: list[tuple[str, str]] = []
    while len(parts) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), at) for at, pair in enumerate(pairwise(parts)))
        if rank == len(ranks):
            break
        made.append((parts[at], parts[at + 1]))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return made


def _trimmed(
    tokenizer: ByteLevelBPE, old: ByteLevelBPE, used: set[str], tokens_per_character: float
) -> AdaptedVocabulary:
    """Reduce `tokenizer` to its special and added tokens, the bytes and what `used` needs; new tokens come last."""
    pairs = [_split(merge) for merge in tokenizer.merges]
    ranks: dict[tuple[str, str], int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault(pair, rank)
    special = _whole(tokenizer)
    kept_tokens = set(BYTE_OF_CHARACTER) | special
    needed: set[tuple[str, str]] = set()
    for token in used - special:
        needed.update(merges_of(token, ranks))
    kept_tokens.update(left + right for left, right in needed)
    kept_tokens &= tokenizer.vocabulary.keys()
    old_ids = old.vocabulary
    before = sorted((token for token in kept_tokens if token in old_ids), key=old_ids.__getitem__)
    added = sorted((token for token in kept_tokens if token not in old_ids), key=tokenizer.vocabulary.__getitem__)
    # A token of the same name may have been special and is now one that text becomes; `ByteLevelBPE` refuses that.
    result = tokenizer.rebuilt(
        {token: n for n, token in enumerate((*before, *added))}, [pair for pair in pairs if pair in needed]
    )
    sources = [(old_ids[token],) for token in before] + [tuple(old.encode_symbols(token)) for token in added]
    return AdaptedVocabulary(result, tuple(sources), len(before), tokens_per_character)


def _with_characters(tokenizer: ByteLevelBPE, texts: Iterable[str]) -> ByteLevelBPE:
    counts: Counter[str] = Counter()
    for portion in portions(texts):
        for text in portion:
            counts.update(text)
    special = _whole(tokenizer)
    first: dict[tuple[str, str], None] = {}
    vocabulary, following = tokenizer.vocabulary, tokenizer.vocabulary_size
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count < MINIMUM_CHARACTER_COUNT:
            break
        if character.isascii() or SURROGATE.match(character):
            continue
        written = to_characters(character.encode())
        if any(written[:end] in special for end in range(2, len(written) + 1)) or not vocabulary.keys() >= {*written}:
            continue
        for end in range(2, len(written) + 1):
            if written[:end] not in vocabulary:
                vocabulary[written[:end]] = following
                following += 1
            first[(written[: end - 1], written[end - 1])] = None
    other_merges = [pair for pair in map(_split, tokenizer.merges) if pair not in first]
    return tokenizer.rebuilt(vocabulary, [*first, *other_merges])


def counted_pairs(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[Counter[int], NDArray[np.int64], int]:
    """Count neighbouring ids, ids and characters of texts.

    Returns:
        The pairs, `left * vocabulary_size + right` each; how often each id stands, `(vocabulary_size,)`; and the
        characters.
    """
    size = tokenizer.vocabulary_size
    pairs: Counter[int] = Counter()
    counts_of_ids = np.zeros(size, np.int64)
    characters = 0
    for portion in portions(texts):
        encoded = [np.asarray(ids, np.int64) for ids in tokenizer.encode_batch(portion)]
        counts_of_ids += np.bincount(np.concatenate(encoded), minlength=size)
        characters += sum(map(len, portion))
        flat = [ids[:-1] * size + ids[1:] for ids in encoded if len(ids) > 1]
        if flat:
            distinct_pairs, counts = np.unique(np.concatenate(flat), return_counts=True)
            pairs.update(dict(zip(distinct_pairs.tolist(), counts.tolist(), strict=True)))
    return pairs, counts_of_ids, characters


def _with_pieces(tokenizer: ByteLevelBPE, texts: Iterable[str]) -> tuple[ByteLevelBPE, VocabularyUse]:
    """Append merges of the neighbouring pairs that occur most within a word to the tokenizer's own.

    Without such pairs, the same tokenizer is returned. The second value counts how the texts use the given one's ids.
    """
    size = tokenizer.vocabulary_size
    pairs, counts_of_ids, characters = counted_pairs(tokenizer, texts)
    use = VocabularyUse(counts_of_ids, characters)
    least = max(MINIMUM_PIECE_COUNT, int(counts_of_ids.sum()) * MINIMUM_PIECE_SHARE)
    cut = splitter(tokenizer.pretokenization)
    vocabulary, whole_tokens = tokenizer.vocabulary, _whole(tokenizer)
    added: list[tuple[str, str]] = []
    for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        if count < least or len(added) == MOST_PIECES:
            break
        left, right = (tokenizer.id_to_token(token_id) for token_id in divmod(pair, size))
        text = (tokenizer.token_bytes(pair // size) + tokenizer.token_bytes(pair % size)).decode("utf-8", "ignore")
        if not whole_tokens.isdisjoint((left, right)):
            continue
        within = to_characters(text.encode()) == left + right and len(cut.pre_tokenize_str(text)) == 1
        if within and left + right not in vocabulary and tokenizer.encode(text) == list(divmod(pair, size)):
            vocabulary[left + right] = size + len(added)  # a hole in the old ids would be closed by trimming
            added.append((left, right))
    if not added:
        return tokenizer, use
    return tokenizer.rebuilt(vocabulary, [*map(_split, tokenizer.merges), *added]), use


def _whole(tokenizer: ByteLevelBPE) -> set[str]:
    """Return the tokens that no merge makes: special and added ones."""
    return {*tokenizer.special_tokens, *(token.content for token in tokenizer.added_tokens)}


def _split(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")
    return left, right
