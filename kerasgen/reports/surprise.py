"""Groups the tokens of a scored text into whole characters, each with its bits and what else the model held likely."""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass
from typing import Final

from kerasgen.evaluation.base import TextScore, TokenChoice
from kerasgen.terminal import visible

LEVELS: Final = (1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 10.0, 12.5)
"""Bits at which the next colour begins; a piece below the first has none."""
_SIGNS: Final = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "⇤"}


@dataclass(frozen=True)
class Piece:
    """Some characters of a text, as few as whole tokens are.

    Args:
        text: the characters, with escapes for what a page must not obey.
        bits: what they cost, the sum over their tokens; None where nothing predicts them.
        tokens: how many those are.
        level: 0 to `len(LEVELS)`, by the bits.
        choices: what the model held likeliest in the place of the first of the tokens: text and probability, 0 to 1.
    """

    text: str
    bits: float | None
    tokens: int
    level: int
    choices: tuple[tuple[str, float], ...]


def pieces(score: TextScore, limit: int) -> tuple[list[Piece], bool]:
    """Return the first pieces of a text, and whether there are more.

    Args:
        score: the score of the text.
        limit: tokens that are shown, at most.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found: list[Piece] = []
    text, nats, begin = "", 0.0, 0
    shown = min(limit, len(score.tokens))
    for place in range(shown):
        text += decoder.decode(score.tokens[place], final=place == len(score.tokens) - 1)
        nats -= score.token_log_probabilities[place]
        if decoder.getstate()[0] and place < shown - 1:  # a character goes on in the next token
            continue
        bits = None if math.isnan(nats) else nats / math.log(2.0)
        choices = score.top_logprobs[begin] if begin < len(score.top_logprobs) else ()
        if text:
            found.append(Piece(visible(text), bits, place + 1 - begin, level(bits), tuple(map(_choice, choices))))
        text, nats, begin = "", 0.0, place + 1
    return found, shown < len(score.tokens)


def level(bits: float | None) -> int:
    """Return which colour so many bits have, 0 for none."""
    return 0 if bits is None else sum(bits >= least for least in LEVELS)


def _choice(choice: TokenChoice) -> tuple[str, float]:
    return named(choice.token), math.exp(choice.log_probability)


def named(token: bytes) -> str:
    """Return a token as it can be read, white space by signs; one that is a part of a character by its bytes."""
    try:
        text = visible(token.decode("utf-8"))
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in token)
    return "".join(_SIGNS.get(character, character) for character in text) or "∅"
