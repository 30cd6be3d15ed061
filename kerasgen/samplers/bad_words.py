"""Finds the tokens that would complete a forbidden string, by the bytes that tokens stand for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kerasgen.tokens.base import Tokenizer


class BadWords:
    """Which tokens would complete a bad word, given the text so far.

    A word is found wherever its bytes lie: inside one token, across several, begun by the prompt. So the text
    generated never completes one, however it could be cut into tokens. A start, end or padding token is no text, and
    is never excluded.

    Args:
        words: strings of valid Unicode that are not empty.
        tokenizer: the tokenizer whose `token_bytes` say what each id stands for.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer) -> None:
        self.words = [word.encode("utf-8") for word in words]
        special = {tokenizer.start_token_id, *tokenizer.end_token_ids, tokenizer.pad_token_id}
        self._bytes = [
            b"" if token_id in special else tokenizer.token_bytes(token_id)
            for token_id in range(tokenizer.vocabulary_size)
        ]
        self._sorted = sorted(range(len(self._bytes)), key=self._bytes.__getitem__)
        self._sorted_bytes = [self._bytes[token_id] for token_id in self._sorted]
        self._longest = max(map(len, self.words), default=0)
        inside = [n for n, text in enumerate(self._bytes) if any(word in text for word in self.words)]
        self._inside = np.array(inside, dtype=np.int64)

    def excluded(self, token_ids: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return which tokens would complete a bad word after `token_ids`, bool `(vocabulary_size,)`."""
        mask = np.zeros(len(self._bytes), dtype=np.bool_)
        mask[self._inside] = True
        tail = self._tail(token_ids)
        for word in self.words:
            for begun in range(1, len(word)):
                if tail.endswith(word[:begun]):
                    mask[self._starting_with(word[begun:])] = True
        return mask

    def _tail(self, token_ids: Sequence[int]) -> bytes:
        """Return the text's last bytes, as many as the beginning of a bad word may take."""
        pieces: list[bytes] = []
        missing = self._longest - 1
        for token_id in reversed(token_ids):
            if missing <= 0:
                break
            pieces.append(self._bytes[token_id])
            missing -= len(pieces[-1])
        return b"".join(reversed(pieces))

    def _starting_with(self, prefix: bytes) -> list[int]:
        first = bisect_left(self._sorted_bytes, prefix)
        token_ids = []
        for place in range(first, len(self._sorted)):
            if not self._sorted_bytes[place].startswith(prefix):
                break
            token_ids.append(self._sorted[place])
        return token_ids
