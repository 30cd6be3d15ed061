"""A constraint: the text is a number of so many digits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from kerasgen.constraints.base import CharacterAutomaton, Constraint, State, require


@dataclass(frozen=True)
class PlaceholderConstraint(Constraint):
    """A number without zeros in front.

    Args:
        digits: how many it has.
    """

    contract_version: ClassVar[int] = 1

    digits: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        is_count = type(self.digits) is int and self.digits >= 1
        require(is_count, "`digits` must be a whole number of at least 1", f"digits={self.digits!r}")

    def automaton(self) -> CharacterAutomaton:
        """Return what reads such a number, one character after another."""
        return _Number(self.digits)


class _Number(CharacterAutomaton):
    """Its state is how many digits were read."""

    def __init__(self, digits: int) -> None:
        self._digits = digits

    @property
    def first(self) -> State:
        return 0

    def arcs(self, state: State) -> Iterable[tuple[int, int, State]]:
        assert isinstance(state, int)
        if state < self._digits:
            yield ord("0" if state else "1"), ord("9"), state + 1

    def ends(self, state: State) -> bool:
        return state == self._digits
