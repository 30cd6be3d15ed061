"""Decodes bytes to text a few at a time: a character is shown as soon as it is certain, and never before."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from kerasgen.tokens.base import IncrementalDecoder

# What UTF-8 forbids and Python's "surrogatepass" writes. 0xED only ever begins a sequence, so a match is never a part
# of another character.
_SURROGATE_BYTES = re.compile(rb"(\xed[\xa0-\xbf][\x80-\xbf])")

# The second bytes that may follow a first byte, where not all of 0x80 to 0xBF may; U+D800 to U+DFFF are let through.
_SECOND_BYTES = {0xE0: (0xA0, 0xBF), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}


def decode_utf8(data: bytes) -> str:
    """Return the text of the bytes, with U+FFFD for each error, as Python's `errors="replace"` writes it.

    A surrogate in the form of "surrogatepass" becomes that surrogate again, so that every `str` survives.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        parts = _SURROGATE_BYTES.split(data)
    return "".join(part.decode("utf-8", "surrogatepass" if n % 2 else "replace") for n, part in enumerate(parts))


def unfinished_bytes(data: bytes) -> int:
    """Return how many bytes at the end, 0 to 3, begin a character that later bytes may complete."""
    for count in range(1, min(3, len(data)) + 1):
        first = data[-count]
        if 0x80 <= first <= 0xBF:
            continue
        if first < 0xC2 or first > 0xF4:
            return 0
        length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
        if count >= length:
            return 0
        low, high = _SECOND_BYTES.get(first, (0x80, 0xBF))
        return count if count == 1 or low <= data[1 - count] <= high else 0
    return 0


class Utf8Decoder:
    """Turns bytes into text as they come; joined, its answers equal `decode_utf8` of all the bytes."""

    def __init__(self) -> None:
        self._unfinished = b""

    def push(self, data: bytes) -> str:
        """Return the characters that became certain with these bytes."""
        data = self._unfinished + data
        certain = len(data) - unfinished_bytes(data)
        self._unfinished = data[certain:]
        return decode_utf8(data[:certain])

    def finish(self) -> str:
        """Return U+FFFD for what never became a character, or nothing, and start anew."""
        data, self._unfinished = self._unfinished, b""
        return decode_utf8(data)


class ByteTokenDecoder(IncrementalDecoder):
    """Turns the ids of a tokenizer whose tokens are bytes into text, one id at a time.

    Args:
        token_bytes: the bytes of an id; whatever it raises for an unknown id, `push` raises.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = Utf8Decoder()

    def push(self, token_id: int) -> str:
        """Return the characters that became certain with this id; often one, sometimes none."""
        return self._decoder.push(self._token_bytes(token_id))

    def push_all(self, token_ids: Iterable[int]) -> str:
        """Return what `push` of each of these ids does, joined."""
        return self._decoder.push(b"".join(map(self._token_bytes, token_ids)))

    def finish(self) -> str:
        """Return what is left, with U+FFFD for bytes that never became a character, and start anew."""
        return self._decoder.finish()
