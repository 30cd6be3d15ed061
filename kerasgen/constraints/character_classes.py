"""An automaton over classes of characters, walked by bytes: what all of its states share is worked out once.

A state of Chinese verse leads thousands of characters to a few states, by their tones and rhymes. Ranges of code points
would be thousands for each state; here the classes' bytes are one tree, and a state inside a character is a node of it
with the states that the classes below lead to.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from kerasgen.constraints.base import ByteAutomaton, State


class ClassTree:
    """The UTF-8 of characters as a tree whose leaves are numbers of classes; equal subtrees are one.

    Args:
        children: for each node its bytes, with nodes of higher numbers, or at the last byte with -1 - class. The root
            is node 0.
    """

    def __init__(self, children: Sequence[Mapping[int, int]]) -> None:
        numbers: dict[tuple[tuple[int, int], ...], int] = {}
        own: list[int] = [0] * len(children)
        # Of the nodes that are kept, the children come first here and have the higher numbers in the end.
        for node in reversed(range(len(children))):
            steps = tuple(
                (byte, after if after < 0 else own[after])
                for byte, after in sorted(children[node].items())
                if after < 0 or own[after] >= 0
            )
            own[node] = numbers.setdefault(steps, len(numbers)) if steps else -1
        last = len(numbers) - 1
        self._children: list[dict[int, int]] = [{} for _ in numbers] or [{}]
        self.below: list[tuple[int, ...]] = [()] * len(self._children)
        self.missing: list[int] = [0] * len(self._children)
        for steps, number in numbers.items():
            self._children[last - number] = {byte: after if after < 0 else last - after for byte, after in steps}
        for node in reversed(range(len(self._children))):
            found: set[int] = set()
            for after in self._children[node].values():
                found.update((-1 - after,) if after < 0 else self.below[after])
                self.missing[node] = 1 if after < 0 else self.missing[after] + 1
            self.below[node] = tuple(sorted(found))

    @classmethod
    def of(cls, class_of: Mapping[str, int]) -> ClassTree:
        """Return the tree of characters with their classes."""
        children: list[dict[int, int]] = [{}]
        for character, number in class_of.items():
            node, (*first, last) = 0, character.encode()
            for byte in first:
                after = children[node].get(byte)
                if after is None:
                    after = children[node][byte] = len(children)
                    children.append({})
                node = after
            children[node][last] = -1 - number
        return cls(children)

    def merged(self, number_of: Sequence[int]) -> ClassTree:
        """Return the tree in which each class has the number that is given for it; those with -1 are left out."""
        return ClassTree(
            [
                {
                    byte: after if after >= 0 else -1 - number_of[-1 - after]
                    for byte, after in steps.items()
                    if after >= 0 or number_of[-1 - after] >= 0
                }
                for steps in self._children
            ]
        )

    def written(self) -> list[list[list[int]]]:
        """Return for each node runs of bytes as `[first, last, after]`: a node, or -1 - class."""
        nodes = []
        for children in self._children:
            runs: list[list[int]] = []
            for byte, after in sorted(children.items()):
                if runs and runs[-1][1] == byte - 1 and runs[-1][2] == after:
                    runs[-1][1] = byte
                else:
                    runs.append([byte, byte, after])
            nodes.append(runs)
        return nodes

    def steps(self, node: int, targets: Sequence[State]) -> dict[int, State]:
        """Return the bytes that may follow at a node, where each class of `below[node]` leads to its target."""
        by_class = dict(zip(self.below[node], targets, strict=True))
        return {
            byte: by_class[-1 - after]
            if after < 0
            else Within(self, after, tuple([by_class[number] for number in self.below[after]]))
            for byte, after in self._children[node].items()
        }


class Within(NamedTuple):
    """A state inside a character.

    Args:
        tree: the tree that its bytes are read by.
        node: the node of it.
        targets: the state that each class below the node leads to.
    """

    tree: ClassTree
    node: int
    targets: tuple[Hashable, ...]


class ClassAutomaton(ByteAutomaton):
    """An automaton over characters in classes; subclasses say where each class leads.

    Args:
        trees: one or several divisions of the same characters into classes.
    """

    def __init__(self, trees: Sequence[ClassTree]) -> None:
        self._trees = trees
        self._merged: dict[tuple[int, tuple[int, ...]], ClassTree] = {}

    @property
    def trees(self) -> Sequence[ClassTree]:
        """The divisions of characters into classes."""
        return self._trees

    @abstractmethod
    def targets(self, state: State) -> tuple[int, Sequence[State | None]]:
        """Return the number of a tree, and for each of its classes the state that it leads to, or None."""

    @abstractmethod
    def ends(self, state: State) -> bool:
        """Return whether the text is complete here, between two characters."""

    @abstractmethod
    def likeness_of(self, state: State) -> State:
        """Return the likeness of a state between characters; see `ByteAutomaton.likeness`."""

    def steps(self, state: State) -> Mapping[int, State]:
        """Return the bytes that may follow."""
        if isinstance(state, Within):
            return state.tree.steps(state.node, state.targets)
        base, targets = self.targets(state)
        # Classes that lead to one state are one: most places tell apart few of them, so few nodes are left.
        numbers: dict[State, int] = {}
        number_of = tuple([-1 if target is None else numbers.setdefault(target, len(numbers)) for target in targets])
        tree = self._merged.get((base, number_of))
        if tree is None:
            tree = self._merged.setdefault((base, number_of), self._trees[base].merged(number_of))
        return tree.steps(0, list(numbers)) if numbers else {}

    def accepts(self, state: State) -> bool:
        """Return whether the text is complete here; inside a character it never is."""
        return not isinstance(state, Within) and self.ends(state)

    def likeness(self, state: State) -> State:
        """Return what states have in common from which as many characters are to come."""
        if isinstance(state, Within):
            return state.tree.missing[state.node], frozenset(map(self.likeness_of, state.targets))
        return self.likeness_of(state)
