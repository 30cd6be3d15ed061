"""Makes a vocabulary from a corpus: one token for each frequent character, bytes for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kerasgen.errors import TokenArgumentError
from kerasgen.keywords import checked
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import CHARACTER_OF_BYTE, SURROGATE, to_characters


@checked(TokenArgumentError)
def whole_character_bpe(
    texts: Iterable[str],
    *,
    vocabulary_size: int,
    minimum_count: int = 2,
    end_token: str = "<|endoftext|>",
) -> ByteLevelBPE:
    """Return a byte-level BPE in which each frequent non-ASCII character is exactly one token, in any text.

    A character's bytes are merged from left to right, and nothing else is. Every merge thus adds a continuation byte
    to the beginning of an unfinished character, which in UTF-8 only the same character's own next byte can follow: no
    merge reaches across characters, and whether a character is one token never depends on its neighbours. Characters
    that are too rare are two to four tokens; ASCII characters are single bytes, so always one.

    The most frequent characters win, equally frequent ones by code point, until the next one does not fit. The
    beginnings of characters (one or two bytes short of one) need ids too, which characters share.

    Args:
        texts: read once.
        vocabulary_size: at most this many ids: 256 bytes in GPT-2's order, the merges in order, the end token last.
        minimum_count: a character that occurs less often falls to bytes.
        end_token: the name of the last id, which starts, ends and pads.

    Raises:
        TokenArgumentError: the vocabulary has no room for the bytes and the end token, or a number is out of range.
    """
    if vocabulary_size < 257:
        raise TokenArgumentError(
            "`vocabulary_size` must be at least 257: 256 bytes and the end token. "
            f"Received: vocabulary_size={vocabulary_size}."
        )
    if minimum_count < 1:
        raise TokenArgumentError(f"`minimum_count` must be at least 1. Received: minimum_count={minimum_count}.")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    vocabulary = {character: n for n, character in enumerate(CHARACTER_OF_BYTE.values())}
    merges: list[tuple[str, str]] = []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count < minimum_count:
            break
        if character.isascii() or SURROGATE.match(character):
            continue
        written = to_characters(character.encode())
        missing = [end for end in range(2, len(written) + 1) if written[:end] not in vocabulary]
        if len(vocabulary) + len(missing) + 1 > vocabulary_size:
            break
        for end in missing:
            vocabulary[written[:end]] = len(vocabulary)
            merges.append((written[: end - 1], written[end - 1]))
    vocabulary.setdefault(end_token, len(vocabulary))
    return ByteLevelBPE(vocabulary, merges, end_token=end_token)
