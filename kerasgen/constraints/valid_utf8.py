"""Finds the tokens that keep a text valid UTF-8; generation keeps to them unless `valid_utf8=False`.

The tokens of a byte-level vocabulary are bytes, and a model that is young may end a character in its midst. A text is
in one of ten states: between two characters, or within one of which so many bytes of such values are missing. For each
state a table says which tokens may follow, and the state after each. It is made once for a tokenizer.

Valid is what RFC 3629 allows, without U+FFFD: that character says that bytes were lost, and so it reads for whoever
looks for lost bytes in a text.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import CharacterAutomaton, State
from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.end_token import EndingTokenizer

START = 0
"""The state between two characters."""

REACH = 4
"""Tokens at a prompt's end that decide its state: an unfinished character has at most three bytes, and one more."""

_REPLACEMENT = 0xFFFD
_LAST = 0x10FFFF


class _Characters(CharacterAutomaton):
    """Any characters but the replacement character and surrogates."""

    @property
    def first(self) -> State:
        return START

    def arcs(self, state: State) -> Iterable[tuple[int, int, State]]:
        return (0, _REPLACEMENT - 1, START), (_REPLACEMENT + 1, _LAST, START)

    def ends(self, state: State) -> bool:
        return True


class Utf8Masks:
    """The table of one tokenizer.

    Args:
        steps: int8 `(states, vocabulary_size)`, as the attribute, before dead ends are considered.

    Attributes:
        steps: int8 `(states, vocabulary_size)`, the state after a token; where it may not follow, -1 minus the state
            that reading on from it leads to.
    """

    def __init__(self, steps: npt.NDArray[np.int8]) -> None:
        steps = steps.copy()
        # Forbid states from which this vocabulary can't complete any character.
        known = {START}
        while True:
            leads = np.isin(steps, list(known)).any(axis=1)
            extended = known | set(np.flatnonzero(leads).tolist())
            if extended == known:
                break
            known = extended
        # If a prompt leads into such a state, its unfinished character stays unfinished.
        dead = ~np.isin(np.where(steps < 0, -1 - steps, steps), list(known))
        steps[dead] = -1 - START
        self.steps = steps
        self._allowed: npt.NDArray[np.bool_] = steps >= 0
        for array in (self.steps, self._allowed):
            array.flags.writeable = False

    @property
    def matters(self) -> bool:
        """Whether any token is ever forbidden, and there is a token to begin a text with."""
        return bool((self.steps[START] != START).any() and self._allowed[START].any())

    def state_after(self, token_ids: Sequence[int]) -> int:
        """Return the state after a prompt, its start token with it. Bytes in it that are no character are passed."""
        state = START
        for token_id in token_ids[-REACH:]:
            state = self._read(int(self.steps[state, token_id]))
        return state

    def allowed(self, states: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, bool `(rows, vocabulary_size)`, for states `(rows,)`."""
        return self._allowed[states]

    def advance(self, states: npt.NDArray[np.int64], token_ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Return the states after a token each, int64 of the shape of `states`; of one not allowed as in a prompt."""
        next_states = self.steps[states, token_ids].astype(np.int64)
        return np.asarray(np.where(next_states < 0, -1 - next_states, next_states))

    @staticmethod
    def _read(step: int) -> int:
        return step if step >= 0 else -1 - step


_MASKS: dict[int, tuple[Any, Utf8Masks | None]] = {}


def masks_of(tokenizer: Tokenizer | EndingTokenizer) -> Utf8Masks | None:
    """Return the masks of a tokenizer, made once while it is used; None where every token is whole characters.

    There are none either where no token at all, special ones and the end token included, may begin a text. A token that
    ends texts in the end token's place is the text that it was.
    """
    base: Any = tokenizer
    while isinstance(base, EndingTokenizer):
        base = base.original
    key = id(base)
    if key not in _MASKS:
        masks = Utf8Masks(_steps(base))
        _MASKS[key] = weakref.ref(base, lambda _: _MASKS.pop(key)), masks if masks.matters else None
    return _MASKS[key][1]


def _steps(tokenizer: Tokenizer) -> npt.NDArray[np.int8]:
    """Return a tokenizer's table of steps as `Utf8Masks` takes it."""
    texts, absent = [], []
    for token_id in range(tokenizer.vocabulary_size):
        try:
            text = b"" if token_id == tokenizer.end_token_id else tokenizer.shown_bytes(token_id)
        except TokenArgumentError:
            text = b""
            absent.append(token_id)
        texts.append(text)
    byte_steps = _byte_steps()
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")  # longest first, so that the tokens with a byte at a place are a prefix
    starts = np.cumsum([0, *lengths[:-1]])[order]
    flat = np.frombuffer(b"".join(texts), dtype=np.uint8)
    states = np.repeat(np.arange(len(byte_steps), dtype=np.int64)[:, None], len(texts), axis=1)
    may_follow = np.ones(states.shape, dtype=np.bool_)
    for place in range(int(lengths.max(initial=0))):
        count = int((lengths > place).sum())
        next_states = byte_steps[states[:, :count], flat[starts[:count] + place]]
        may_follow[:, :count] &= next_states >= 0
        states[:, :count] = np.where(next_states < 0, -1 - next_states, next_states)
    # A token without text ends an unfinished character, and may follow only between characters.
    empty = lengths[order] == 0
    states[:, empty] = START
    may_follow[:, empty] = (np.arange(len(byte_steps)) == START)[:, None]
    steps = np.empty(states.shape, dtype=np.int8)
    steps[:, order] = np.where(may_follow, states, -1 - states)
    steps[:, absent] = -1 - START
    return steps


def _byte_steps() -> npt.NDArray[np.int64]:
    """Return the table of the single bytes, `(states, 256)`; a byte that can't follow begins a new character."""
    automaton = _Characters()
    numbers: dict[Hashable, int] = {automaton.start: START}
    rows: list[dict[int, int]] = []
    for state in (waiting := [automaton.start]):
        row = {}
        for byte, after in automaton.steps(state).items():
            if after not in numbers:
                numbers[after] = len(numbers)
                waiting.append(after)
            row[byte] = numbers[after]
        rows.append(row)
    first = [rows[START].get(byte, START) for byte in range(256)]
    return np.array([[row.get(byte, -1 - first[byte]) for byte in range(256)] for row in rows], dtype=np.int64)
