"""Runs an automaton over bytes on a tokenizer's tokens: a cached row of bits says for each state what may come next.

A token is allowed where all of its bytes can be read from the state; so it may end inside a character, and the next one
goes on there. The end token is allowed where the text is complete, and other special tokens never.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import Constraint, ConstraintState, State
from kerasgen.constraints.distances import Distances
from kerasgen.constraints.token_trie import TokenTrie, token_texts
from kerasgen.errors import GenerateArgumentError, GenerationError
from kerasgen.tokens.base import Tokenizer

_DEAD = -1
_UNKNOWN = -2
# Masks kept unpacked, a byte for each token of the vocabulary; packed ones are kept for every state.
_ROWS_KEPT = 1024


class TokenMasks:
    """A constraint for one tokenizer; one instance serves every row, beam and call.

    A row's state is a number, so that a batch's states are an array that is indexed and copied like any other. Several
    threads may ask: what is not known yet is found by one of them at a time.

    Args:
        constraint: which texts may be written.
        tokenizer: the tokenizer whose `token_bytes` say what each id stands for.

    Attributes:
        vocabulary_size: tokens that a mask says something of.
        start: the state of a text that has not begun.
        distances: how many tokens each state is away from a complete text.
        lock: held while states are numbered.
    """

    ENDED = 0
    """The state after the end token: nothing may follow but the end token again."""

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer) -> None:
        self.constraint = constraint
        self.lock = threading.RLock()
        self._automaton = constraint.automaton()
        self.vocabulary_size = tokenizer.vocabulary_size
        self._ends = list(tokenizer.end_token_ids)
        self._strips_first_space = tokenizer.strips_first_space
        self._bytes = token_texts(tokenizer)
        self._trie = TokenTrie(self._bytes)
        self._states: list[State] = [None]
        self._numbers: dict[State, int] = {}
        self._table = np.full((64, 256), _DEAD, dtype=np.int32)  # (states, bytes) to states
        self._masks = {self.ENDED: np.packbits(np.isin(np.arange(self.vocabulary_size), self._ends))}
        self._after: dict[tuple[int, int], int] = {}
        self._rows: dict[int, npt.NDArray[np.bool_]] = {}
        self.start = self._number(self._automaton.start)
        self.distances = Distances(self)

    def begin(self, prompt: bytes) -> int:
        """Return the state after a prompt, or at the start if the prompt is no part of the constrained text.

        Raises:
            GenerateArgumentError: no text of the form begins with this prompt, or the prompt is such a text already.
        """
        if not self.constraint.whole_text:
            return self.start
        state = self.start
        shown = prompt.decode("utf-8", "replace")
        for place, byte in enumerate(prompt):
            after = self._step(state, byte)
            if after == _DEAD:
                read = prompt[:place].decode("utf-8", "ignore")
                raise GenerateArgumentError(
                    f"No text of the form {self.constraint} begins with the prompt {shown!r}: it fits as far as "
                    f"{read!r}. Change the prompt, or pass whole_text=False to constrain only what follows it."
                )
            state = after
        if not self.can_go_on(state):
            raise GenerateArgumentError(
                f"The prompt {shown!r} is a complete text of the form {self.constraint}: nothing can follow. Give "
                "only its beginning, or pass whole_text=False to constrain what follows it."
            )
        return state

    def spell(self, token_ids: Sequence[int]) -> bytes:
        """Return the bytes of a text that consists of these tokens."""
        spelled = b"".join(self._bytes[token_id] for token_id in token_ids)
        return spelled.removeprefix(b" ") if self._strips_first_space else spelled

    def row(self, state: int) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, bool `(vocabulary_size,)`, read-only; the same array while it is kept."""
        row = self._rows.get(state)
        if row is None:
            if len(self._rows) >= _ROWS_KEPT:
                self._rows.clear()
            row = self._rows[state] = self.allowed([state])[0]
            row.flags.writeable = False
        return row

    def follow(self, state: int, token_id: int) -> int:
        """Return the state after one allowed token.

        Raises:
            GenerationError: the token was not allowed.
        """
        after = self._after.get((state, token_id))
        return self._follow(state, token_id) if after is None else after

    def allowed(self, states: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, bool `(rows, vocabulary_size)`.

        Args:
            states: int `(rows,)`.

        Raises:
            GenerationError: the vocabulary has no token that could follow; only one that lacks bytes can do that.
        """
        packed = [self._masks[state] if state in self._masks else self._fill(state) for state in map(int, states)]
        return np.unpackbits(np.stack(packed), axis=1, count=self.vocabulary_size).view(np.bool_)

    def reached(self, state: int) -> npt.NDArray[np.int32]:
        """Return the state after each token, int32 `(vocabulary_size,)`; -1 where it may not follow."""
        with self.lock:
            return self._reached(state)

    def _reached(self, state: int) -> npt.NDArray[np.int32]:
        after = np.full(self.vocabulary_size, _DEAD, dtype=np.int32)
        if state == self.ENDED:
            return after
        nodes = np.array([state])
        # Depth by depth through the tokens' bytes, all tokens at once.
        for level in self._trie.levels:
            before = nodes[level.parents]
            alive = np.flatnonzero(before != _DEAD)
            if not len(alive):
                break
            self._expand(np.unique(before[alive]).tolist())
            nodes = np.full(len(level.parents), _DEAD, dtype=np.int64)
            nodes[alive] = self._table[before[alive], level.bytes[alive]]
            after[level.token_ids] = nodes[level.nodes]
        return after

    def advance(
        self, states: Sequence[int] | npt.NDArray[np.int64], token_ids: Sequence[int] | npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the states after one allowed token for each row, int64 `(rows,)`.

        Raises:
            GenerationError: a token was not allowed.
        """
        pairs = zip(np.asarray(states).tolist(), np.asarray(token_ids).tolist(), strict=True)
        return np.array([self.follow(state, token_id) for state, token_id in pairs], dtype=np.int64)

    def is_complete(self, state: int) -> bool:
        """Return whether a text in this state has the form."""
        return state == self.ENDED or self._automaton.accepts(self._states[state])

    def can_go_on(self, state: int) -> bool:
        """Return whether any text may follow."""
        return state != self.ENDED and bool(self._automaton.steps(self._states[state]))

    def likeness(self, state: int) -> State:
        """Return the automaton's likeness of the state; see `ByteAutomaton.likeness`."""
        return self._automaton.likeness(self._states[state])

    def _follow(self, state: int, token_id: int) -> int:
        after = state
        if token_id in self._ends:
            after = self.ENDED if self.is_complete(state) else _DEAD
        elif state == self.ENDED or not 0 <= token_id < self.vocabulary_size or not self._bytes[token_id]:
            after = _DEAD
        else:
            for byte in self._bytes[token_id]:
                after = self._step(after, byte)
                if after == _DEAD:
                    break
        if after == _DEAD:
            raise GenerationError(f"The token {token_id} can't follow in a text of the form {self.constraint}.")
        self._after[state, token_id] = after
        return after

    def _step(self, state: int, byte: int) -> int:
        with self.lock:
            self._expand([state])
            return int(self._table[state, byte])

    def _fill(self, state: int) -> npt.NDArray[np.uint8]:
        allowed = self.reached(state) != _DEAD
        allowed[self._ends] = self.is_complete(state)
        if not allowed.any():
            raise GenerationError(
                f"The vocabulary has no token that could follow in a text of the form {self.constraint}. It lacks "
                "bytes that the form needs; extend it, or choose another constraint."
            )
        self._masks[state] = np.packbits(allowed)
        return self._masks[state]

    def _expand(self, states: Sequence[int]) -> None:
        """Fill the rows of the table of these states."""
        for state in states:
            if self._table[state, 0] == _UNKNOWN:
                steps = {
                    byte: self._number(after) for byte, after in self._automaton.steps(self._states[state]).items()
                }
                self._table[state] = _DEAD
                self._table[state, list(steps)] = list(steps.values())

    def _number(self, state: State) -> int:
        number = self._numbers.get(state)
        if number is None:
            number = len(self._states)
            self._numbers[state] = number
            self._states.append(state)
            if number == len(self._table):
                self._table = _doubled(self._table)
            self._table[number, 0] = _UNKNOWN
        return number


class _Text(ConstraintState):
    """The state of one text; its masks are shared by all texts.

    Args:
        masks: the constraint's.
        state: where the text stands.
        remaining: tokens that it may still get, or None for any number.
    """

    __slots__ = ("_masks", "_room", "_state")

    def __init__(self, masks: TokenMasks, state: int, remaining: int | None) -> None:
        self._masks = masks
        self._state = state
        self._remaining = remaining

    def allowed(self) -> npt.NDArray[np.bool_]:
        if self._remaining is None or not self._masks.distances.may_matter(self._remaining):
            return self._masks.row(self._state)
        return self._masks.distances.in_time(self._state, self._remaining)

    def advance(self, token_id: int) -> None:
        self._state = self._masks.follow(self._state, token_id)
        self._remaining = None if self._remaining is None else self._remaining - 1

    def copy(self) -> _Text:
        return _Text(self._masks, self._state, self._remaining)

    @property
    def is_complete(self) -> bool:
        return self._masks.is_complete(self._state)


def begin(
    constraint: Constraint, tokenizer: Tokenizer, prompt: Sequence[int], remaining: int | None
) -> ConstraintState:
    """Return the state of a text before its first generated token; see `Constraint.begin`."""
    masks = masks_of(constraint, tokenizer)
    state = masks.begin(masks.spell(prompt))
    if remaining is not None:
        fewest = masks.distances.fewest(state)
        if fewest is not None and fewest > remaining:
            raise GenerateArgumentError(
                f"No text of the form {constraint} can be completed here in {remaining} tokens; it takes {fewest} "
                "at least. Raise `max_new_tokens` or `max_length`, or shorten the prompt."
            )
    return _Text(masks, state, remaining)


@functools.lru_cache(maxsize=16)
def masks_of(constraint: Constraint, tokenizer: Tokenizer) -> TokenMasks:
    """Return the masks of a constraint for a tokenizer, made once while they are used."""
    return TokenMasks(constraint, tokenizer)


def _doubled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])
