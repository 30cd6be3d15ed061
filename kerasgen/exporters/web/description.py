"""Describes tokenizer and constraints for the page: what its modules need to make and check the same ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kerasgen.constraints.base import Constraint, State
from kerasgen.constraints.character_classes import ClassAutomaton
from kerasgen.constraints.distances import Distances
from kerasgen.constraints.masks import masks_of
from kerasgen.errors import ExportArgumentError
from kerasgen.tokens import pretokenization
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE

PATTERNS: Final = (
    pretokenization.GPT2_PATTERN,
    pretokenization.LLAMA3_PATTERN,
    pretokenization.QWEN2_PATTERN,
)
"""Regular expressions that mean the same in a browser, once their classes of characters are written out."""

MOST_STATES: Final = 20_000
"""States of a form that a page can hold, between characters or between bytes: some megabytes of JSON."""

_ANY_CASE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPELLED_CASE = "(?:'[sS\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"  # not every browser knows the other


def tokenizer(found: Tokenizer) -> dict[str, Any]:
    """Return the description of a byte-level BPE.

    Raises:
        ExportArgumentError: it is of another kind, or cuts text in a way that the page can't.
    """
    if not isinstance(found, ByteLevelBPE):
        raise ExportArgumentError(
            f"A page encodes by byte-level BPE. Received: a model with a {type(found).__name__}. Export it with "
            "exporter='litertlm', or serve it."
        )
    kind = found.pretokenization
    pattern = pretokenization.GPT2_PATTERN if kind.pattern is None else kind.pattern
    if pattern not in PATTERNS:
        raise ExportArgumentError(
            "A page can cut text as GPT-2, Llama 3 or Qwen 2 does. Received: a tokenizer that cuts by "
            f"{pattern!r:.120}. Export it with exporter='litertlm', or serve it."
        )
    blanks = [token.content for token in found.added_tokens if token.lstrip or token.rstrip]
    if blanks:
        raise ExportArgumentError(
            f"A page knows no added tokens that take the blanks beside them. Received: {', '.join(map(repr, blanks))}."
        )
    classes = dict(zip(("letters", "numbers", "spaces"), pretokenization.character_classes(kind), strict=True))
    return {
        "vocabulary": found.vocabulary,
        "merges": list(found.merges),
        "vocabulary_size": found.vocabulary_size,
        "start_token_id": found.start_token_id,
        "end_token_ids": list(found.end_token_ids),
        "special_token_ids": sorted(found.special_tokens.values()),
        "added_tokens": [token.content for token in found.added_tokens],
        "cut": {
            "pattern": pattern.replace(_ANY_CASE, _SPELLED_CASE),
            **{name: _inside(runs) for name, runs in classes.items()},
            "single_digits": kind.single_digits,
            "ignore_merges": kind.ignore_merges,
        },
    }


def _inside(runs: Iterable[tuple[int, int]]) -> str:
    """Return the inside of a class of a regular expression of JavaScript."""
    return "".join(rf"\u{{{first:x}}}" + (rf"-\u{{{last:x}}}" if last > first else "") for first, last in runs)


def form(constraint: Constraint, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a constraint's automaton, and how far the end of a text is from each state.

    An automaton over classes of characters is written down as such: the classes' bytes once, and for each state between
    characters where each class leads. Any other one is written down byte by byte.

    Args:
        constraint: which texts may be written.
        tokenizer: by whose tokens distances are counted.

    Raises:
        ExportArgumentError: it has more states than a page can hold.
    """
    automaton, masks = constraint.automaton(), masks_of(constraint, tokenizer)
    written: dict[str, Any] = {"whole_text": constraint.whole_text}
    if isinstance(automaton, ClassAutomaton):
        states = _states(automaton.start, lambda state: _characters(automaton, state), constraint)
        masks.distances.may_matter(0)  # which counts them, once it is known that they are not too many
        written |= _by_characters(automaton, states, masks.distances)
    else:
        states = _states(automaton.start, lambda state: automaton.steps(state).values(), constraint)
        masks.distances.may_matter(0)
        written["states"] = [
            {
                "steps": _runs({byte: states[after] for byte, after in automaton.steps(state).items()}),
                "accepts": automaton.accepts(state),
                "fewest": masks.distances.fewest_of(automaton.likeness(state)),
            }
            for state in states
        ]
    return written | {"farthest": masks.distances.farthest}


def _states(start: State, after: Callable[[State], Iterable[State | None]], constraint: Constraint) -> dict[State, int]:
    """Return the states that can be reached, with their numbers.

    Raises:
        ExportArgumentError: there are more of them than a page can hold.
    """
    numbers: dict[State, int] = {start: 0}
    waiting = deque(numbers)
    while waiting:
        for state in after(waiting.popleft()):
            if state is not None and state not in numbers:
                numbers[state] = len(numbers)
                waiting.append(state)
        if len(numbers) > MOST_STATES:
            raise ExportArgumentError(
                f"The form {constraint} has more than {MOST_STATES:,} states, which is too much for a page. Name the "
                "rhyme (rhyme='東'), leave out rhyme, tones or script, choose a shorter form, or serve the model."
            )
    return numbers


def _characters(automaton: ClassAutomaton, state: State) -> Iterable[State | None]:
    return set(automaton.targets(state)[1])


def _by_characters(automaton: ClassAutomaton, states: Mapping[State, int], distances: Distances) -> dict[str, Any]:
    """Return the trees of the classes, the states between characters, and the distances of states inside of them."""
    likes: dict[State, int] = {}
    written: list[dict[str, Any]] = []
    inside: dict[str, int] = {}
    for state in states:
        tree, targets = automaton.targets(state)
        by_target: dict[int, list[int]] = {}
        for number, target in enumerate(targets):
            if target is not None:
                by_target.setdefault(states[target], []).append(number)
        like = automaton.likeness_of(state)
        written.append(
            {
                "tree": tree,
                "targets": [[target, *_ranges(classes)] for target, classes in by_target.items()],
                "accepts": automaton.ends(state),
                "fewest": distances.fewest_of(like),
                "like": likes.setdefault(like, len(likes)),
            }
        )
    for likeness, fewest in distances.counted().items():
        if isinstance(likeness, tuple) and len(likeness) == 2 and isinstance(likeness[1], frozenset):
            missing, leads = likeness
            if all(like in likes for like in leads):
                key = ",".join(map(str, [missing, *sorted(likes[like] for like in leads)]))
                inside[key] = fewest
    return {"trees": [tree.written() for tree in automaton.trees], "states": written, "inside": inside}


def _ranges(numbers: Iterable[int]) -> list[int]:
    """Return ascending numbers as the first and the last of each run of them."""
    runs: list[int] = []
    for number in numbers:
        if runs and runs[-1] == number - 1:
            runs[-1] = number
        else:
            runs += [number, number]
    return runs


def _runs(steps: Mapping[int, int]) -> list[tuple[int, int, int]]:
    runs: list[tuple[int, int, int]] = []
    for byte, after in sorted(steps.items()):
        if runs and runs[-1][1] == byte - 1 and runs[-1][2] == after:
            runs[-1] = (runs[-1][0], byte, after)
        else:
            runs.append((byte, byte, after))
    return runs
