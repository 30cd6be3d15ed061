"""The tokenizer contract: encodes texts to ids and decodes them exactly, for training, generating and serving."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from kerasgen.errors import TokenArgumentError


class Span(NamedTuple):
    """Characters of a text: from the place `start` up to but not including the place `end`."""

    start: int
    end: int


class IncrementalDecoder(ABC):
    """Turns ids into text one at a time and never shows half a character.

    Joined, what `push` and `finish` return equals `Tokenizer.decode` of all the ids.
    """

    @abstractmethod
    def push(self, token_id: int) -> str:
        """Return the characters that became certain with this id; often one, sometimes none."""

    def push_all(self, token_ids: Iterable[int]) -> str:
        """Return what `push` of each of these ids does, joined."""
        return "".join(map(self.push, token_ids))

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
        strips_first_space: whether encoding puts a space before a text, which decoding takes away again.
    """

    vocabulary_size: int
    start_token_id: int | None
    end_token_id: int
    pad_token_id: int
    strips_first_space: bool = False

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Ids that end a text when a model generates them, `end_token_id` first; documents end with that one alone."""
        return (self.end_token_id,)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens that `skip_special_tokens` leaves out, by name; none where a subclass doesn't say them."""
        return {}

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; a special token's text stays text, and nothing is added at either end."""

    def encode_with_special(self, text: str, allowed_special: str | Collection[str]) -> list[int]:
        """Return the ids of `text` in which the names of some special tokens become those tokens.

        Args:
            text: any text.
            allowed_special: names out of `special_tokens`, or `"all"`; the others stay text.

        Raises:
            TokenArgumentError: a name is no special token's.
        """
        allowed = self.allowed_special(allowed_special)
        if not allowed:
            return self.encode(text)
        parts = cut_at(allowed).split(text)
        ids: list[int] = []
        for n, part in enumerate(parts):
            ids += [self.special_tokens[part]] if n % 2 else self.encode(part) if part else []
        return ids

    def allowed_special(self, names: str | Collection[str]) -> frozenset[str]:
        """Return the special tokens that `allowed_special` names.

        Raises:
            TokenArgumentError: a name is no special token's.
        """
        if names == "all":
            return frozenset(self.special_tokens)
        if isinstance(names, str):
            raise TokenArgumentError(f"`allowed_special` must be 'all' or a set of names. Received: {names!r}.")
        unknown = sorted(set(names) - self.special_tokens.keys())
        if unknown:
            shown = ", ".join(map(repr, list(self.special_tokens)[:12])) or "none"
            raise TokenArgumentError(
                f"{unknown[0]!r} is no special token of this tokenizer, so it can't be allowed. Its special tokens: "
                f"{shown}."
            )
        return frozenset(names)

    def encode_with_spans(self, text: str, allowed_special: str | Collection[str] = ()) -> tuple[list[int], list[Span]]:
        """Return the ids of `text`, and for each the characters that it writes or writes a part of.

        Args:
            text: any text.
            allowed_special: as for `encode_with_special`.

        Raises:
            TokenArgumentError: the ids don't write the bytes of the text, and a subclass doesn't say how they lie; or a
                name is no special token's.
        """
        ids = self.encode_with_special(text, allowed_special) if allowed_special else self.encode(text)
        spans = spans_of([len(self.token_bytes(token_id)) for token_id in ids], text)
        if spans is None:
            raise TokenArgumentError(
                f"{type(self).__name__} doesn't write the bytes of this text, so its tokens can't be laid beside its "
                f"characters: {text!r:.80}."
            )
        return ids, spans

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of `text`, and for each the place of the character in which it begins.

        Raises:
            TokenArgumentError: as `encode_with_spans`.
        """
        ids, spans = self.encode_with_spans(text)
        return ids, [span.start for span in spans]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text; subclasses use all cores."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the ids; bytes that are not UTF-8 become U+FFFD."""

    @abstractmethod
    def decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """Return a new incremental decoder."""

    def continuation_decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """Return a new incremental decoder of ids that continue a text, which keeps a space before the first.

        It differs from `decoder` where encoding puts a space before a text and decoding takes it away.
        """
        return self.decoder(skip_special_tokens=skip_special_tokens)

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id stands for (a special token's are its name in UTF-8)."""

    def shown_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id adds to a text that has begun: none for a special token."""
        return self.token_bytes(token_id) if self.decode([token_id], skip_special_tokens=True) else b""

    @abstractmethod
    def digest(self) -> str:
        """Return 64 hexadecimal digits that change with anything that could change an id."""

    @abstractmethod
    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the files from which the tokenizer can be read again into an existing directory."""


def spans_of(sizes: Sequence[int], text: str, dropped: bytes = b"") -> list[Span] | None:
    """Return the characters of which each token writes bytes, or None where the bytes are not the text's.

    Args:
        sizes: bytes of each token.
        text: what they write.
        dropped: bytes that no token writes.
    """
    places = [
        n
        for n, character in enumerate(text)
        for _ in character.encode("utf-8", "surrogatepass").translate(None, dropped)
    ]
    if sum(sizes) != len(places):
        return None
    ends = list(accumulate(sizes))
    places.append(len(text))
    return [
        Span(places[end - size], places[end - 1] + 1 if size else places[end])
        for size, end in zip(sizes, ends, strict=True)
    ]


def cut_at(names: Collection[str]) -> re.Pattern[str]:
    """Return a pattern that splits a text at these names and keeps them; the longest name counts."""
    return re.compile("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")")


def spans_of_pieces(
    text: str,
    allowed: Collection[str],
    special: Mapping[str, int],
    encode: Callable[[str, int], tuple[list[int], list[Span]]],
) -> tuple[list[int], list[Span]]:
    """Return the ids and spans of a text that is cut at the names of special tokens.

    Args:
        text: any text.
        allowed: those names.
        special: their ids.
        encode: gives the ids and spans of what stands between them; it is told at which character that begins.
    """
    ids: list[int] = []
    spans: list[Span] = []
    place = 0
    for n, piece in enumerate(cut_at(allowed).split(text)):
        inside = ([special[piece]], [Span(0, len(piece))]) if n % 2 else encode(piece, place) if piece else ([], [])
        ids += inside[0]
        spans += [Span(place + span.start, place + span.end) for span in inside[1]]
        place += len(piece)
    return ids, spans
