"""Finds the longest passage of each generated text that stands in a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Copy:
    """The longest passage of a text that stands, character by character, in the corpus.

    Args:
        characters: its length in code points; 0 if not even a character is shared.
        passage: the passage itself, the first one if there are several.
    """

    characters: int
    passage: str


def longest_copies(texts: Sequence[str], corpus: Iterable[str]) -> list[Copy]:
    """Return the longest common substring of each text and the corpus; no passage crosses two documents.

    The suffix automaton is that of the texts, which are few. The corpus runs through it once, a character at a time, so
    time is linear in both, and memory in the texts alone, however large the corpus.

    Args:
        texts: what was written.
        corpus: documents, read once.

    Source: Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text".
    """
    automaton = _SuffixAutomaton(texts)
    for document in corpus:
        automaton.read(document)
    longest = automaton.longest()
    return [_copy(text, automaton, longest) for text in texts]


def _copy(text: str, automaton: _SuffixAutomaton, longest: Sequence[int]) -> Copy:
    most, end, state = 0, 0, 0
    for place, character in enumerate(text):
        state = automaton.steps[state][character]
        if longest[state] > most:
            most, end = longest[state], place + 1
    return Copy(most, text[end - most : end])


class _SuffixAutomaton:
    """Suffix automaton of several texts: it accepts each of their substrings.

    Args:
        texts: each is put in from the start, so no substring crosses two.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.steps: list[dict[str, int]] = [{}]
        self.links = [-1]
        self.lengths = [0]
        for text in texts:
            last = 0
            for character in text:
                last = self._extend(last, character)
        self._matched = [0] * len(self.steps)

    def read(self, document: str) -> None:
        """Note for each state the longest of its substrings that stands in the document."""
        steps, links, lengths, matched = self.steps, self.links, self.lengths, self._matched
        state = length = 0
        for character in document:
            after = steps[state].get(character)
            if after is None:
                while after is None and state:
                    state = links[state]
                    after = steps[state].get(character)
                length = lengths[state]
                if after is None:
                    continue
            state = after
            length += 1
            if length > matched[state]:
                matched[state] = length

    def longest(self) -> list[int]:
        """Return for each state the longest suffix of its substrings that was read."""
        matched = list(self._matched)
        order = sorted(range(1, len(self.lengths)), key=self.lengths.__getitem__)
        for state in reversed(order):
            link = self.links[state]
            if matched[state]:
                matched[link] = self.lengths[link]  # every suffix of a substring that was read was read too
        for state in order:
            matched[state] = max(matched[state], matched[self.links[state]])
        return matched

    def _extend(self, last: int, character: str) -> int:
        target = self.steps[last].get(character)
        if target is not None:
            return target if self.lengths[target] == self.lengths[last] + 1 else self._clone(last, target, character)
        new = self._add({}, -1, self.lengths[last] + 1)
        place = last
        while place != -1 and character not in self.steps[place]:
            self.steps[place][character] = new
            place = self.links[place]
        if place == -1:
            self.links[new] = 0
        else:
            target = self.steps[place][character]
            exact = self.lengths[target] == self.lengths[place] + 1
            self.links[new] = target if exact else self._clone(place, target, character)
        return new

    def _clone(self, place: int, target: int, character: str) -> int:
        clone = self._add(dict(self.steps[target]), self.links[target], self.lengths[place] + 1)
        self.links[target] = clone
        while place != -1 and self.steps[place].get(character) == target:
            self.steps[place][character] = clone
            place = self.links[place]
        return clone

    def _add(self, steps: dict[str, int], link: int, length: int) -> int:
        self.steps.append(steps)
        self.links.append(link)
        self.lengths.append(length)
        return len(self.steps) - 1
