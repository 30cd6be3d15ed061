"""The constraint contract: a frozen value that says which texts may be written, and an automaton that accepts them.

A constraint is built, compared and saved without NumPy or Keras. For generating, its automaton is met with the bytes of
a tokenizer's tokens (`kerasgen.constraints.masks`), so a token may be a part of a character, a character or several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from kerasgen.constraints import byte_ranges
from kerasgen.errors import ConstraintArgumentError
from kerasgen.keywords import Checked

if TYPE_CHECKING:
    from kerasgen.tokens.base import Tokenizer

State: TypeAlias = Hashable

_STEPS_KEPT = 256  # states


def require(holds: bool, what: str, received: str) -> None:
    """Raise `ConstraintArgumentError` unless `holds`; `what` says how it must be, `received` what came."""
    if not holds:
        raise ConstraintArgumentError(f"{what}. Received: {received}.")


class ByteAutomaton(ABC):
    """An automaton that says which texts may be written, byte by byte of their UTF-8.

    From every state that can be reached, some accepting state can be: an automaton that promises this never leaves a
    text that can't be finished.
    """

    @property
    @abstractmethod
    def start(self) -> State:
        """The state before the first byte."""

    @abstractmethod
    def steps(self, state: State) -> Mapping[int, State]:
        """Return the bytes that may follow, 0 to 255, each with the state that it leads to."""

    @abstractmethod
    def accepts(self, state: State) -> bool:
        """Return whether the text is complete here."""

    def likeness(self, state: State) -> State:
        """Return a key that is equal for states with the same number of characters still to come.

        Telling more states apart than needed is right as well, and takes longer: it is asked for when a text has
        little room left to be completed in.
        """
        return state

    def walk(self, text: bytes) -> tuple[State | None, int]:
        """Return the state after the text, or None, and how many bytes could be read."""
        state: State = self.start
        for count, byte in enumerate(text):
            after = self.steps(state).get(byte)
            if after is None:
                return None, count
            state = after
        return state, len(text)


class CharacterAutomaton(ByteAutomaton):
    """An automaton that says which texts may be written, character by character; subclasses don't see the bytes."""

    @property
    @abstractmethod
    def first(self) -> State:
        """The state before the first character."""

    @abstractmethod
    def arcs(self, state: State) -> Iterable[tuple[int, int, State]]:
        """Yield `(first, last, next state)`: code points from first to last lead to that state. No two may overlap."""

    @abstractmethod
    def ends(self, state: State) -> bool:
        """Return whether the text is complete here."""

    @property
    def start(self) -> State:
        """The state before the first byte."""
        return self.first

    def likeness(self, state: State) -> State:
        """Return a key that is equal for states with the same number of characters still to come.

        States inside a character are alike if as many bytes are missing and they lead to states that are. Override
        `likeness_of` for the states between characters.
        """
        if isinstance(state, byte_ranges.Inside):
            return frozenset((missing, self.likeness_of(after)) for missing, after in state.ways())
        return self.likeness_of(state)

    def likeness_of(self, state: State) -> State:
        """Return the key of a state between characters; by default the state itself. See `likeness`."""
        return state

    def steps(self, state: State) -> Mapping[int, State]:
        """Return the bytes that may follow; inside a character a state is what may be left of it."""
        # Of thousands of ranges they take milliseconds, and a text that is looked through asks at every character.
        steps_by_state: dict[State, Mapping[int, State]] = self.__dict__.setdefault("_steps", {})
        if state not in steps_by_state:
            if len(steps_by_state) >= _STEPS_KEPT:
                steps_by_state.clear()
            inside = state if isinstance(state, byte_ranges.Inside) else byte_ranges.Inside(self.arcs(state))
            steps_by_state[state] = inside.steps()
        return steps_by_state[state]

    def accepts(self, state: State) -> bool:
        """Return whether the text is complete here; inside a character it never is."""
        return not isinstance(state, byte_ranges.Inside) and self.ends(state)


class ConstraintState(ABC):
    """State of one text under a constraint. The loops ask for the mask before each token, and report the choice."""

    @abstractmethod
    def allowed(self) -> Any:
        """Return which tokens may come next, bool `(vocabulary_size,)`, or None for all.

        The end token's place says whether the text may end here. The array is read, never written to, and may be the
        same one at every step. Where it allows nothing, the text ends.
        """

    @abstractmethod
    def advance(self, token_id: int) -> None:
        """Go on by one allowed token; never by the end token."""

    @abstractmethod
    def copy(self) -> ConstraintState:
        """Return an independent copy; beam search asks for one for each beam that it keeps."""

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether the text, as it is, has the form."""


@dataclass(frozen=True, kw_only=True)
class Constraint(metaclass=Checked):
    """A rule for which texts may be written. Subclasses are frozen dataclasses; making one imports no Keras.

    Args:
        whole_text: whether the prompt is a part of the text that must have the form; if not, only what is generated
            after it.

    Raises:
        ConstraintArgumentError: a setting is out of range.
        MissingDependencyError: the constraint needs a package that is not installed.
    """

    contract_version: ClassVar[int]  # a plugin declares it, see kerasgen.plugins.contract_versions
    _argument_error = ConstraintArgumentError
    # Meets the automaton with the tokenizer. The package says what does: a contract knows no implementation.
    _begin: ClassVar[Callable[..., ConstraintState]]

    whole_text: bool = True

    def __post_init__(self) -> None:
        require(isinstance(self.whole_text, bool), "`whole_text` must be True or False", f"{self.whole_text!r}")

    @abstractmethod
    def automaton(self) -> ByteAutomaton:
        """Return the automaton; called once for each model that the constraint is used with."""

    def begin(self, tokenizer: Tokenizer, prompt: Sequence[int], remaining: int | None = None) -> ConstraintState:
        """Return the state of a text before its first generated token.

        Args:
            tokenizer: the tokenizer whose tokens the masks are over. What is costly to make for it is kept and shared.
            prompt: ids of the prompt, without a start token.
            remaining: how many tokens may be generated; the masks see to it that the text is complete by
                then. None for any number.

        Raises:
            GenerateArgumentError: no text of the form goes on from this prompt, or none with so few tokens.
        """
        return self._begin(self, tokenizer, prompt, remaining)

    def matches(self, text: str) -> bool:
        """Return whether the text has the form."""
        automaton = self._automaton
        state, _ = automaton.walk(text.encode("utf-8", "surrogatepass"))
        return state is not None and automaton.accepts(state)

    def __str__(self) -> str:
        settings = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(settings)})"

    @cached_property
    def _automaton(self) -> ByteAutomaton:
        return self.automaton()

    def __getstate__(self) -> dict[str, Any]:
        # The automaton is made anew where a copy arrives.
        return {name: value for name, value in self.__dict__.items() if name != "_automaton"}


def ranges(characters: Sequence[str]) -> list[tuple[int, int]]:
    """Return the fewest ranges of code points, first and last, that hold exactly these characters."""
    merged: list[tuple[int, int]] = []
    for code in sorted({ord(character) for character in characters}):
        if merged and code == merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], code)
        else:
            merged.append((code, code))
    return merged
