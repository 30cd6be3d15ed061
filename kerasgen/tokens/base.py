"""The tokenizer contract: text to ids and back, exactly, for training, generating and serving alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path


class IncrementalDecoder(ABC):
    """Turns ids into text one at a time and never shows half a character.

    Joined, what `push` and `finish` return equals `Tokenizer.decode` of all the ids.
    """

    @abstractmethod
    def push(self, token_id: int) -> str:
        """Return the characters that became certain with this id; often one, sometimes none."""

    @abstractmethod
    def finish(self) -> str:
        """Return what is left, with U+FFFD for bytes that never became a character, and start anew."""


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        vocabulary_size: how many ids there are; ids run from 0 to `vocabulary_size - 1`.
        start_token_id: put before a document when a model is trained or prompted, or None.
        end_token_id: put after a document; a model that generates it has finished.
        pad_token_id: fills positions that are masked out.
    """

    vocabulary_size: int
    start_token_id: int | None
    end_token_id: int
    pad_token_id: int

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Ids that end a text when a model generates them, `end_token_id` first; documents end with that one alone."""
        return (self.end_token_id,)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; a special token's text stays text, and nothing is added at either end."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text; subclasses use all cores."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the ids; bytes that are not UTF-8 become U+FFFD."""

    @abstractmethod
    def decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """Return a new incremental decoder."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id stands for (a special token's are its name in UTF-8)."""

    @abstractmethod
    def digest(self) -> str:
        """Return 64 hexadecimal digits that change with anything that could change an id."""

    @abstractmethod
    def save(self, directory: str | Path) -> None:
        """Write the files from which the tokenizer can be read again into an existing directory."""
