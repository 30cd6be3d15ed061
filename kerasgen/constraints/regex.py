"""A regular expression as a constraint; the `outlines-core` package turns it into an automaton over bytes."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerasgen.constraints.base import ByteAutomaton, Constraint, State, require
from kerasgen.errors import ConstraintArgumentError, MissingDependencyError

# What stands before every pattern, for the text after it may be empty. It is long, and no part of it is its beginning:
# the library's automaton also looks for the pattern from every later place of a text, and from how many places at once
# decides its size. After this it is one at a time, unless a repetition is longer. With a single byte, `.{3,14}。` took
# 5 s and `.{3,16}。` had not ended after 15; with these, it takes 10 ms.
_BEFORE = b"\x00" + b"\x01" * 511
# A caret that is an anchor, and parentheses that group: neither escaped nor in a character class. Those match first.
_SIGNS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<anchor>\^)|(?P<open>\()|(?P<close>\))", re.DOTALL)


@dataclass(frozen=True)
class Regex(Constraint):
    r"""Texts that a regular expression matches from beginning to end.

    The syntax is that of Rust's `regex` crate; what Python has too means what `re.fullmatch` means. What no finite
    automaton can do (look-around, references to groups) is refused. Needs the extra `regex`.

    Args:
        pattern: such as `r"\d{4}年\d{1,2}月"`. Greedy or lazy makes no difference, for a whole text is matched. Where
            a text may go on for ever, so may the model.
    """

    pattern: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(isinstance(self.pattern, str), "`pattern` must be a string", f"pattern={self.pattern!r}")
        _compiled(self.pattern)

    def automaton(self) -> ByteAutomaton:
        """Return the automaton of the pattern."""
        return _compiled(self.pattern)


class _Table(ByteAutomaton):
    """An automaton that is a table already.

    Args:
        start: the first state.
        table: the steps of each state.
        accepting: the states where a text is complete.
    """

    def __init__(self, start: int, table: Mapping[int, Mapping[int, int]], accepting: frozenset[int]) -> None:
        self._start = start
        self._table = table
        self._accepting = accepting

    @property
    def start(self) -> State:
        return self._start

    def steps(self, state: State) -> Mapping[int, State]:
        return self._table.get(state, {})  # type: ignore[call-overload, no-any-return]  # its states are numbers

    def accepts(self, state: State) -> bool:
        return state in self._accepting


@functools.lru_cache(maxsize=64)
def _compiled(pattern: str) -> _Table:
    try:
        import outlines_core
    except ImportError as cause:
        raise MissingDependencyError(
            "A Regex constraint needs the package outlines-core. Run: pip install 'kerasgen[regex]'.",
            package="outlines_core",
            extra="regex",
        ) from cause
    anchored = pattern.removeprefix("^")
    if any(match["anchor"] for match in _SIGNS.finditer(anchored)):
        raise ConstraintArgumentError(
            f"A pattern is matched against the whole text, so ^ can stand at its beginning only. Received: {pattern!r}."
        )
    every_byte = outlines_core.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})
    try:
        if _closes_early(anchored):  # "a)(b" has no meaning, and would get one from the group around it
            outlines_core.Index(f"\\x00{anchored}", every_byte)
        # `$` lets no alternative that matches sooner hide a longer one.
        index = outlines_core.Index(rf"\x00\x01{{{len(_BEFORE) - 1}}}(?:{anchored})$", every_byte)
    except ValueError as cause:
        raise ConstraintArgumentError(
            f"The pattern can't be turned into an automaton: {cause}. Received: {pattern!r}. It must be a regular "
            "expression in the syntax of Rust's regex crate, without look-around, \\b or references to groups."
        ) from cause
    return _trimmed(index, pattern)


def _closes_early(pattern: str) -> bool:
    """Whether a group seems to be closed before it is opened."""
    depth = 0
    for match in _SIGNS.finditer(pattern):
        depth += (match["open"] is not None) - (match["close"] is not None)
        if depth < 0:
            return True
    return False


def _trimmed(index: Any, pattern: str) -> _Table:
    """Return the automaton without the states from which no text can be completed."""
    table: dict[int, dict[int, int]] = index.get_transitions()
    accepting: set[int] = set(index.get_final_states())
    start: int | None = index.get_initial_state()
    for byte in _BEFORE:
        start = None if start is None else table.get(start, {}).get(byte)
    before: dict[int, set[int]] = {}
    for state, steps in table.items():
        for byte, after in steps.items():
            if byte < 256:  # 256 is the end token, which the library adds where a text is complete
                before.setdefault(after, set()).add(state)
    alive, waiting = set(accepting), list(accepting)
    while waiting:
        for state in before.get(waiting.pop(), ()):
            if state not in alive:
                alive.add(state)
                waiting.append(state)
    if start not in alive or start is None:
        raise ConstraintArgumentError(f"No text matches the pattern. Received: {pattern!r}.")
    transitions = {
        state: {byte: after for byte, after in steps.items() if byte < 256 and after in alive}
        for state, steps in table.items()
        if state in alive
    }
    return _Table(start, transitions, frozenset(accepting))
