"""A tokenizer like another one, but with another end token."""

from __future__ import annotations

import hashlib
from typing import Any

from kerasgen.tokens.base import Tokenizer


class EndingTokenizer:
    """A tokenizer with another end token, to see a text end where it would have gone on; the rest is the original's.

    Args:
        tokenizer: the original.
        end_token_id: the id that ends a text; one beyond the vocabulary never comes.
    """

    def __init__(self, tokenizer: Tokenizer, end_token_id: int) -> None:
        self.original = tokenizer
        self.end_token_id = end_token_id
        self.end_token_ids = (end_token_id,)

    def digest(self) -> str:
        """Return another digest than the original's: an engine that is kept for it would not end the text here."""
        return hashlib.sha256(f"{self.original.digest()} ends with {self.end_token_id}".encode()).hexdigest()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)
