"""Text to ids by the merges of a byte-level BPE, on the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.forks import mind_forks
from kerasgen.tokens.pretokenization import (
    CHARACTER_OF_BYTE,
    STAND_IN,
    SURROGATE,
    pre_tokenizer,
    splitter,
    to_characters,
)

if TYPE_CHECKING:
    import tokenizers

# Texts handed to the library at once: its answers hold far more than ids, and are dropped between.
_TEXTS_AT_ONCE = 1024


class BpeEncoder:
    """The library's encoder, for every `str`: with lone surrogates, which its strings can't hold, and missing bytes.

    Args:
        vocabulary: ids by token.
        merges: pairs, the first merged first.
    """

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._present_bytes = bytes(byte for byte, character in CHARACTER_OF_BYTE.items() if character in vocabulary)
        self._rust = _rust_tokenizer(vocabulary, merges)
        self._splitter = splitter()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises:
            TokenArgumentError: `text` is no `str`, or holds a byte that the vocabulary has no token for.
        """
        self._check(text)
        try:
            ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeError):
            return self._encode_surrogates(text)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, computed on all cores unless `TOKENIZERS_PARALLELISM` is `false`.

        Raises:
            TokenArgumentError: as `encode`.
        """
        mind_forks()
        return [ids for some in _portions(texts) for ids in self._encode_some(some)]

    def encode_symbols(self, symbols: str) -> list[int]:
        """Return the ids that the merges make of one piece of text, given as the printable characters of its bytes."""
        return [token.id for token in self._rust.model.tokenize(symbols)]

    def _encode_some(self, texts: Sequence[str]) -> list[list[int]]:
        for text in texts:
            self._check(text)
        try:
            return [encoding.ids for encoding in self._rust.encode_batch_fast(texts, add_special_tokens=False)]
        except (TypeError, UnicodeError):  # a lone surrogate is in one of them
            return [self.encode(text) for text in texts]

    def _encode_surrogates(self, text: str) -> list[int]:
        """Cut the text with stand-ins for its surrogates, which Rust's strings can't hold, and merge the real bytes."""
        pieces = self._splitter.pre_tokenize_str(SURROGATE.sub(STAND_IN, text))
        return [
            token_id
            for _, (start, end) in pieces
            for token_id in self.encode_symbols(to_characters(text[start:end].encode("utf-8", "surrogatepass")))
        ]

    def _check(self, text: str) -> None:
        if not isinstance(text, str):
            raise TokenArgumentError(f"Only `str` can be encoded. Received: {type(text).__name__} {text!r:.80}.")
        if len(self._present_bytes) == 256:
            return
        # Without its byte's token, the library would drop a character and say nothing.
        absent = text.encode("utf-8", "surrogatepass").translate(None, self._present_bytes)
        if absent:
            raise TokenArgumentError(
                f"The vocabulary has no token for the byte 0x{absent[0]:02X}, so this text can't be encoded: "
                f"{text[:40]!r}. It lacks {256 - len(self._present_bytes)} of the 256 bytes; add them as tokens."
            )


def _rust_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers.models import BPE

    # Special tokens are not told to the library: it would look for their names in every text.
    tokenizer = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer()
    return tokenizer


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        yield texts[start : start + _TEXTS_AT_ONCE]
