"""Decodes ids to text as they come: whole characters only, and nothing that a stop string could still take back."""

from __future__ import annotations

from collections.abc import Sequence

from kerasgen.tokens.base import Tokenizer


class Writer:
    """One generated text, token by token.

    Joined, what `push` and `finish` return is the text, without special tokens and up to the first stop string,
    wherever that lies across tokens. It is looked for in the generated text alone, not in the prompt.

    Args:
        tokenizer: the tokenizer whose ids come.
        stop: strings before which the text ends.
        begins: whether the text begins with the first token, so that a space which encoding puts there is not shown.

    Attributes:
        stopped: where the text ended before a stop string, in characters; None while it did not.
        read: characters that were decoded, those with them that are held back.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, begins: bool = False) -> None:
        decoder = tokenizer.decoder if begins else tokenizer.continuation_decoder
        self._decoder = decoder(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self._written = 0
        self.read = 0
        self.stopped: int | None = None

    def push(self, token_id: int) -> str:
        """Return the characters that became certain with this id; often one, sometimes none."""
        piece = self._decoder.push(token_id)
        self.read += len(piece)
        return self._take(piece)

    def finish(self, *, ended: bool) -> str:
        """Return the text that was held back.

        Args:
            ended: whether the model ended the text. If not, bytes that begin a character are left out: the next token
                might have completed it.
        """
        text = self._decoder.finish()
        piece = self._take(text if ended else text.rstrip("\ufffd"))
        held, self._held = self._held, ""
        self._written += len(held)
        return piece + held

    def _take(self, piece: str) -> str:
        if self.stopped is not None:
            return ""
        self._held += piece
        places = [place for place in map(self._held.find, self._stop) if place >= 0]
        if places:
            certain, self._held = self._held[: min(places)], ""
            self.stopped = self._written + len(certain)
        else:
            keep = max((_begun(self._held, stop) for stop in self._stop), default=0)
            certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._written += len(certain)
        return certain


def _begun(text: str, stop: str) -> int:
    """Count the characters at the end of `text` that begin the stop string; `text` doesn't hold it whole."""
    for count in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:count]):
            return count
    return 0


def write(
    tokenizer: Tokenizer, token_ids: Sequence[int], *, ended: bool, stop: Sequence[str] = (), begins: bool = False
) -> str:
    """Return the text of generated ids as `Writer` writes it."""
    if not stop:
        decoder = (tokenizer.decoder if begins else tokenizer.continuation_decoder)(skip_special_tokens=True)
        text, rest = decoder.push_all(token_ids), decoder.finish()
        return text + (rest if ended else rest.rstrip("\ufffd"))
    writer = Writer(tokenizer, stop, begins=begins)
    return "".join(map(writer.push, token_ids)) + writer.finish(ended=ended)
