"""An automaton over bytes meets a tokenizer: which tokens may come next, one row of bits for each state, kept.

A token is allowed where all of its bytes can be read from the state; so it may end inside a character, and the next one
goes on there. The end token is allowed where the text is complete, and other special tokens never.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.constraints.base import Constraint, ConstraintState, State
from kerasgen.errors import GenerateArgumentError, GenerationError, TokenArgumentError
from kerasgen.tokens.base import Tokenizer

_DEAD = -1
_UNKNOWN = -2
# Masks kept unpacked, a byte for each token of the vocabulary; packed ones are kept for every state.
_ROWS_KEPT = 1024


class TokenMasks:
    """A constraint for one tokenizer; one instance serves every row, beam and call.

    A row's state is a number, so that a batch's states are an array that is indexed and copied like any other.

    Args:
        constraint: which texts may be written.
        tokenizer: whose `token_bytes` say what each id stands for.
    """

    ENDED = 0
    """The state after the end token: nothing may follow but the end token again."""

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer) -> None:
        self.constraint = constraint
        self._automaton = constraint.automaton()
        self._size = tokenizer.vocabulary_size
        self._end = tokenizer.end_token_id
        self._bytes = token_texts(tokenizer)
        self._trie = _Trie(self._bytes)
        self._states: list[State] = [None]
        self._numbers: dict[State, int] = {}
        self._table = np.full((64, 256), _DEAD, dtype=np.int32)  # (states, bytes) to states
        self._masks = np.zeros((64, (self._size + 7) // 8), dtype=np.uint8)
        self._has_mask = np.zeros(64, dtype=np.bool_)
        self._has_mask[self.ENDED] = True
        self._masks[self.ENDED] = np.packbits(np.arange(self._size) == self._end)
        self._after: dict[tuple[int, int], int] = {}
        self._rows: dict[int, npt.NDArray[np.bool_]] = {}
        self.start = self._number(self._automaton.start)

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
        """Return the bytes of the text that these tokens are."""
        return b"".join(self._bytes[token_id] for token_id in token_ids)

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
        wanted = np.asarray(states, dtype=np.int64)
        for state in np.unique(wanted[~self._has_mask[wanted]]).tolist():
            self._fill(state)
        return np.unpackbits(self._masks[wanted], axis=1, count=self._size).view(np.bool_)

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

    def _follow(self, state: int, token_id: int) -> int:
        after = state
        if token_id == self._end:
            after = self.ENDED if self.is_complete(state) else _DEAD
        elif state == self.ENDED or not 0 <= token_id < self._size or not self._bytes[token_id]:
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
        self._expand([state])
        return int(self._table[state, byte])

    def _fill(self, state: int) -> None:
        """Compute which tokens may follow, depth by depth through the tokens' bytes, all tokens at once."""
        allowed = np.zeros(self._size, dtype=np.bool_)
        reached = np.array([state])
        for level in self._trie.levels:
            before = reached[level.parents]
            alive = np.flatnonzero(before != _DEAD)
            if not len(alive):
                break
            self._expand(np.unique(before[alive]).tolist())
            reached = np.full(len(level.parents), _DEAD, dtype=np.int64)
            reached[alive] = self._table[before[alive], level.bytes[alive]]
            allowed[level.token_ids] = reached[level.nodes] != _DEAD
        allowed[self._end] = self.is_complete(state)
        if not allowed.any():
            raise GenerationError(
                f"The vocabulary has no token that could follow in a text of the form {self.constraint}. It lacks "
                "bytes that the form needs; extend it, or choose another constraint."
            )
        self._masks[state] = np.packbits(allowed)
        self._has_mask[state] = True

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
                self._masks = _doubled(self._masks)
                self._has_mask = _doubled(self._has_mask)
            self._table[number, 0] = _UNKNOWN
        return number


class _Text(ConstraintState):
    """One text's state among those of the masks that all texts share."""

    __slots__ = ("_masks", "_state")

    def __init__(self, masks: TokenMasks, state: int) -> None:
        self._masks = masks
        self._state = state

    def allowed(self) -> npt.NDArray[np.bool_]:
        return self._masks.row(self._state)

    def advance(self, token_id: int) -> None:
        self._state = self._masks.follow(self._state, token_id)

    def copy(self) -> _Text:
        return _Text(self._masks, self._state)


def begin(constraint: Constraint, tokenizer: Tokenizer, prompt: Sequence[int]) -> ConstraintState:
    """Return the state of a text before its first generated token; see `Constraint.begin`."""
    masks = masks_of(constraint, tokenizer)
    return _Text(masks, masks.begin(masks.spell(prompt)))


@functools.lru_cache(maxsize=16)
def masks_of(constraint: Constraint, tokenizer: Tokenizer) -> TokenMasks:
    """Return the masks of a constraint for a tokenizer, made once while they are used."""
    return TokenMasks(constraint, tokenizer)


class _Level:
    """The distinct beginnings of one length of all tokens.

    Args:
        parents: int `(nodes,)`, the beginning one byte shorter, as a node of the level before.
        last_bytes: int `(nodes,)`.
        token_ids: the tokens of exactly this length.
        nodes: the node that each of them is.
    """

    def __init__(self, parents: list[int], last_bytes: list[int], token_ids: list[int], nodes: list[int]) -> None:
        self.parents = np.array(parents, dtype=np.int64)
        self.bytes = np.array(last_bytes, dtype=np.int64)
        self.token_ids = np.array(token_ids, dtype=np.int64)
        self.nodes = np.array(nodes, dtype=np.int64)


class _Trie:
    """The tokens' bytes as a tree, one array for each depth."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.levels: list[_Level] = []
        waiting = [(token_id, text, 0) for token_id, text in enumerate(texts) if text]
        depth = 0
        while waiting:
            places: dict[tuple[int, int], int] = {}
            tokens: list[int] = []
            nodes: list[int] = []
            longer: list[tuple[int, bytes, int]] = []
            for token_id, text, parent in waiting:
                node = places.setdefault((parent, text[depth]), len(places))
                if len(text) == depth + 1:
                    tokens.append(token_id)
                    nodes.append(node)
                else:
                    longer.append((token_id, text, node))
            self.levels.append(_Level([p for p, _ in places], [b for _, b in places], tokens, nodes))
            waiting = longer
            depth += 1


def token_texts(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes that each id adds to a text: none for special tokens, and for ids that there are none of."""
    texts = []
    for token_id in range(tokenizer.vocabulary_size):
        try:
            text = tokenizer.token_bytes(token_id)
            shown = tokenizer.decode([token_id], skip_special_tokens=True)
        except TokenArgumentError:
            text, shown = b"", ""
        texts.append(text if shown else b"")
    return texts


def _doubled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])
