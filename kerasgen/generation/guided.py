"""Starts each text's state in a call's constraint, and checks that the written text keeps to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kerasgen.constraints.base import Constraint, ConstraintState
from kerasgen.errors import GenerationError
from kerasgen.generation.engine import TextSpace


def begin(
    space: TextSpace,
    with_start: Sequence[Sequence[int]],
    limits: Sequence[int],
    constraint: Constraint | None,
) -> list[ConstraintState] | None:
    """Return where each text stands in its form before its first token, or None where there is no form.

    Args:
        space: the text space whose tokenizer made the ids.
        with_start: prompts with their start token.
        limits: how many tokens each text may have in all.
        constraint: the form.

    Raises:
        GenerateArgumentError: a text can't have the form; before any work.
    """
    if constraint is None:
        return None
    first = 0 if space.tokenizer.start_token_id is None else 1
    return [
        constraint.begin(space.tokenizer, prompt[first:], limit - len(prompt))
        for prompt, limit in zip(with_start, limits, strict=True)
    ]


def check(constraint: Constraint, prompt: str, text: str) -> None:
    """Raise if a limit cut a text before its form was complete, which only a form of very many states lets happen.

    Raises:
        GenerationError: it did.
    """
    whole = prompt + text if constraint.whole_text else text
    if not constraint.matches(whole):
        raise GenerationError(
            f"A text of the form {constraint} was not complete at its limit. Raise `max_new_tokens` or `max_length`. "
            f"It had come to: {whole!r:.200}."
        )


def follow(
    pieces: Iterator[str], constraint: Constraint, prompt: str, return_prompt: bool, stop: tuple[str, ...]
) -> Iterator[str]:
    """Yield the pieces of a text, and raise after them as `check` does. A stop string may end a text sooner."""
    text = ""
    for piece in pieces:
        text += piece
        yield piece
    if not stop:
        check(constraint, prompt, text[len(prompt) :] if return_prompt else text)
