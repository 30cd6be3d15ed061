"""Finds the longest passage of each generated text that stands in a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Copy:
    """The longest passage of a text that stands, character by character, in the corpus.

    Args:
        characters: its length in code points; 0 if not even a character is shared.
        passage: the passage itself, the first one if there are several.
        document: which document of the corpus it stands in, counted from 0; None without a passage.
        before: what stands before it there, at most `CONTEXT` characters.
        after: what stands behind it there, at most as many.
    """

    characters: int
    passage: str
    document: int | None = None
    before: str = ""
    after: str = ""


CONTEXT = 40
"""Code points on either side of a passage that are shown with it."""


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
    for number, document in enumerate(corpus):
        automaton.read(document, number)
    longest, sources = automaton.longest()
    return [_copy(text, automaton, longest, sources) for text in texts]


class _Source(NamedTuple):
    """Where a passage stands: its document's number, a piece of that, and the place in it where the passage ends."""

    document: int
    piece: str
    end: int


def _copy(text: str, automaton: _SuffixAutomaton, longest: Sequence[int], sources: Sequence[_Source | None]) -> Copy:
    most, end, state, source = 0, 0, 0, None
    for place, character in enumerate(text):
        state = automaton.steps[state][character]
        if longest[state] > most:
            most, end, source = longest[state], place + 1, sources[state]
    passage = text[end - most : end]
    if source is None:
        return Copy(most, passage)
    before, after = source.piece[: source.end - most], source.piece[source.end :]
    return Copy(most, passage, source.document, before[-CONTEXT:], after)


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
        self._sources: list[_Source | None] = [None] * len(self.steps)

    def read(self, document: str, number: int) -> None:
        """Note for each state the longest of its substrings that stands in the document, and where."""
        steps, links, lengths, matched = self.steps, self.links, self.lengths, self._matched
        state = length = 0
        ends: dict[int, int] = {}  # of the states whose longest stands in this document
        for place, character in enumerate(document):
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
                ends[state] = place + 1
        for state, end in ends.items():
            begin = max(0, end - matched[state] - CONTEXT)
            self._sources[state] = _Source(number, document[begin : end + CONTEXT], end - begin)

    def longest(self) -> tuple[list[int], list[_Source | None]]:
        """Return for each state the longest suffix of its substrings that was read, and where that stands."""
        matched, sources = list(self._matched), list(self._sources)
        order = sorted(range(1, len(self.lengths)), key=self.lengths.__getitem__)
        for state in reversed(order):
            link = self.links[state]
            if matched[state] and matched[link] < self.lengths[link]:
                matched[link] = self.lengths[link]  # every suffix of a substring that was read was read too
                sources[link] = sources[state]
        for state in order:
            link = self.links[state]
            if matched[link] > matched[state]:
                matched[state], sources[state] = matched[link], sources[link]
        return matched, sources

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
