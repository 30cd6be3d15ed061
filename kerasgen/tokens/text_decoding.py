"""Decodes ids to text; removes a first space that encoding added, and leaves special tokens out on request."""

from __future__ import annotations

from collections.abc import Iterable

from kerasgen.tokens.base import IncrementalDecoder, Tokenizer
from kerasgen.tokens.utf8_decoding import ByteTokenDecoder, decode_utf8


class ShownBytes:
    """The bytes that each id of one text shows; remembers whether the text's first space is still to be taken away.

    Args:
        tokenizer: the tokenizer whose ids come.
        skip_special_tokens: show nothing of special tokens, instead of their names.
        begins: whether the ids begin a text, and don't go on one.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool, begins: bool) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.special_tokens.values())
        self._skips = skip_special_tokens
        self._strips = begins and tokenizer.strips_first_space

    def __call__(self, token_id: int) -> bytes:
        """Return the bytes that this id shows after those that came before."""
        shown = self._tokenizer.token_bytes(token_id)
        if int(token_id) in self._special:
            return b"" if self._skips else shown
        if self._strips:
            self._strips = False
            shown = shown.removeprefix(b" ")
        return shown


class TextDecoder(IncrementalDecoder):
    """Turns ids into text one at a time, and takes the first space away at the beginning of each text.

    Args:
        tokenizer: as `ShownBytes` takes it.
        skip_special_tokens: as there.
        begins: as there.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool, begins: bool = True) -> None:
        self._tokenizer, self._skips, self._begins = tokenizer, skip_special_tokens, begins
        self._inner = self._fresh()

    def push(self, token_id: int) -> str:
        """Return the characters that became certain with this id; often one, sometimes none."""
        return self._inner.push(int(token_id))

    def finish(self) -> str:
        """Return what is left, with U+FFFD for bytes that never became a character, and start anew."""
        text = self._inner.finish()
        self._inner = self._fresh()
        return text

    def _fresh(self) -> ByteTokenDecoder:
        return ByteTokenDecoder(ShownBytes(self._tokenizer, skip_special_tokens=self._skips, begins=self._begins))


def decode(tokenizer: Tokenizer, token_ids: Iterable[int], *, skip_special_tokens: bool) -> str:
    """Return the text of the ids from its beginning."""
    show = ShownBytes(tokenizer, skip_special_tokens=skip_special_tokens, begins=True)
    return decode_utf8(b"".join(map(show, token_ids)))
