"""One script as a constraint: texts whose Chinese characters are all simplified, or all traditional."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kerasgen.constraints import script_tables
from kerasgen.constraints.base import CharacterAutomaton, Constraint, State, require

# Every character but U+FFFD, which says that bytes were lost.
_CHARACTERS = ((0, 0xFFFC), (0xFFFE, 0x10FFFF))


@dataclass(frozen=True)
class Script(Constraint):
    """Texts of any characters, without those that belong to the other Chinese script alone.

    OpenCC's tables say which those are: 发 is simplified, 發 is traditional, and 里, which means a mile in both,
    belongs to both. Needs the extra `opencc`.

    Args:
        script: `"simplified"` or `"traditional"`.
    """

    script: Literal["simplified", "traditional"]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.script in script_tables.NAMES,
            f"`script` must be one of {', '.join(script_tables.NAMES)}",
            f"script={self.script!r}",
        )
        script_tables.foreign(self.script)

    def automaton(self) -> CharacterAutomaton:
        """Return the automaton over characters, which has one state."""
        return _Script(script_tables.without(_CHARACTERS, self.script))


class _Script(CharacterAutomaton):
    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._ranges = ranges

    @property
    def first(self) -> State:
        return 0

    def arcs(self, state: State) -> Iterable[tuple[int, int, State]]:
        return ((first, last, state) for first, last in self._ranges)

    def ends(self, state: State) -> bool:
        return True
