"""Describes tokenizer and constraints for the page: what its modules need to make and check the same ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kerasgen.constraints.base import Constraint, State
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

MOST_STATES: Final = 50_000
"""States of a form that a page can hold: some megabytes of JSON."""

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
    """Return a constraint's automaton over bytes: for each state where which bytes lead, and how far its end is.

    Args:
        constraint: which texts may be written.
        tokenizer: by whose tokens distances are counted.

    Raises:
        ExportArgumentError: it has more states than a page can hold.
    """
    automaton, masks = constraint.automaton(), masks_of(constraint, tokenizer)
    masks.distances.may_matter(0)  # which counts them
    numbers: dict[State, int] = {automaton.start: 0}
    waiting = deque(numbers)
    states: list[dict[str, Any]] = []
    while waiting:
        state = waiting.popleft()
        steps = automaton.steps(state)
        for after in steps.values():
            if after not in numbers:
                numbers[after] = len(numbers)
                waiting.append(after)
        if len(numbers) > MOST_STATES:
            raise ExportArgumentError(
                f"The form {constraint} has more than {MOST_STATES:,} states, which is too much for a page. Name the "
                "rhyme (rhyme='東'), leave out rhyme, tones or script, choose a shorter form, or serve the model."
            )
        fewest = masks.distances.fewest_of(automaton.likeness(state))
        runs = _runs({byte: numbers[after] for byte, after in steps.items()})
        states.append({"steps": runs, "accepts": automaton.accepts(state), "fewest": fewest})
    return {"whole_text": constraint.whole_text, "farthest": masks.distances.farthest, "states": states}


def _runs(steps: Mapping[int, int]) -> list[tuple[int, int, int]]:
    runs: list[tuple[int, int, int]] = []
    for byte, after in sorted(steps.items()):
        if runs and runs[-1][1] == byte - 1 and runs[-1][2] == after:
            runs[-1] = (runs[-1][0], byte, after)
        else:
            runs.append((byte, byte, after))
    return runs
