"""Encodes texts by the merges of a byte-level BPE, on the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.chunks import portions
from kerasgen.tokens.fork_safety import mind_forks
from kerasgen.tokens.pretokenization import (
    CHARACTER_OF_BYTE,
    GPT2,
    STAND_IN,
    SURROGATE,
    Pretokenization,
    pre_tokenizer,
    splitter,
    to_characters,
)

if TYPE_CHECKING:
    import tokenizers
    from tokenizers.pre_tokenizers import PreTokenizer


class BpeEncoder:
    """The library's encoder, for every `str`: with lone surrogates, which its strings can't hold, and missing bytes.

    Args:
        vocabulary: ids by token.
        merges: pairs, the first merged first.
        added: tokens of the vocabulary that are found in a text before it is cut.
        special: tokens of the vocabulary that no text becomes.
        kind: how a text is cut.
        drops_missing_bytes: whether a byte without a token is left out, or an error.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: list[tuple[str, str]],
        added: Sequence[AddedToken] = (),
        special: Iterable[str] = (),
        kind: Pretokenization = GPT2,
        *,
        drops_missing_bytes: bool = False,
    ) -> None:
        self._drops_missing_bytes = drops_missing_bytes
        self._present_bytes = bytes(byte for byte, character in CHARACTER_OF_BYTE.items() if character in vocabulary)
        reached = vocabulary
        if kind.ignore_merges:  # of a piece that has a special token's name the bytes are merged all the same
            unreached = {*special} - {left + right for left, right in merges}
            reached = {token: token_id for token, token_id in vocabulary.items() if token not in unreached}
        self._rust = _rust_tokenizer(reached, merges, added, kind)
        self._added = {vocabulary[token.content] for token in added}
        self._splitter = splitter(kind)

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
        return [ids for portion in portions(texts) for ids in self._encode_some(portion)]

    def encode_symbols(self, symbols: str) -> list[int]:
        """Return the ids that the merges make of one piece of text, given as the printable characters of its bytes."""
        return [token.id for token in self._rust.model.tokenize(symbols)]

    def _encode_surrogates(self, text: str) -> list[int]:
        """Return the ids of a text with lone surrogates: its added tokens, and the pieces between them."""
        if not self._added:
            return encode_surrogates(text, self._rust, self._splitter)
        clean = SURROGATE.sub(STAND_IN, text)
        encoding = self._rust.encode(clean, add_special_tokens=False)
        ids: list[int] = []
        place = 0
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id in self._added and text[start:end] == clean[start:end]:
                ids += encode_surrogates(text[place:start], self._rust, self._splitter)
                ids.append(token_id)
                place = end
        return ids + encode_surrogates(text[place:], self._rust, self._splitter)

    def _encode_some(self, texts: Sequence[str]) -> list[list[int]]:
        for text in texts:
            self._check(text)
        try:
            return [encoding.ids for encoding in self._rust.encode_batch_fast(texts, add_special_tokens=False)]
        except (TypeError, UnicodeError):  # a lone surrogate is in one of them
            return [self.encode(text) for text in texts]

    def _check(self, text: str) -> None:
        if not isinstance(text, str):
            raise TokenArgumentError(f"Only `str` can be encoded. Received: {type(text).__name__} {text!r:.80}.")
        if len(self._present_bytes) == 256 or self._drops_missing_bytes:
            return
        # Without its byte's token, the library would drop a character and say nothing.
        absent = text.encode("utf-8", "surrogatepass").translate(None, self._present_bytes)
        if absent:
            raise TokenArgumentError(
                f"The vocabulary has no token for the byte 0x{absent[0]:02X}, so this text can't be encoded: "
                f"{text[:40]!r}. It lacks {256 - len(self._present_bytes)} of the 256 bytes; add them as tokens."
            )


def encode_surrogates(text: str, rust: tokenizers.Tokenizer, splitter: PreTokenizer) -> list[int]:
    """Return the ids of a text that holds lone surrogates, which the library's strings can't hold.

    It is cut with stand-ins for them, and the real bytes of the pieces are merged.

    Args:
        text: any text.
        rust: the library's tokenizer, for its merges.
        splitter: cuts the text, and leaves the pieces as text.
    """
    return [
        token.id
        for _, (start, end) in splitter.pre_tokenize_str(SURROGATE.sub(STAND_IN, text))
        for token in rust.model.tokenize(to_characters(text[start:end].encode("utf-8", "surrogatepass")))
    ]


def _rust_tokenizer(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], added: Sequence[AddedToken], kind: Pretokenization
) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers.models import BPE

    # Special tokens are not told to the library: it would look for their names in every text.
    tokenizer = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=kind.ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer(kind)
    tokenizer.add_tokens([tokenizers.AddedToken(**token.to_json()) for token in added])
    return tokenizer
