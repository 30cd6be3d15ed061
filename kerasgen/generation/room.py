"""Computes how many new tokens fit behind prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kerasgen.errors import ArgumentError

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel, MaskedLanguageModel


def new_tokens(
    model: LanguageModel | MaskedLanguageModel,
    prompts: Sequence[str],
    most: int,
    *,
    name: str,
    error: type[ArgumentError] = ArgumentError,
) -> int:
    """Return `most`, or as many new tokens as there is room for behind the longest prompt.

    Args:
        model: whose positions bound a text; a masked one has an end token behind each text.
        prompts: what the texts go on from.
        most: new tokens of a text, at most.
        name: of the prompts' argument, in the error.
        error: what to raise.

    Raises:
        ArgumentError: a prompt leaves no room for a token.
    """
    positions = model.max_sequence_length
    if positions is None:
        return most
    from kerasgen.models.base import MaskedLanguageModel

    length = 1 + max((len(model.tokenizer.encode(prompt)) for prompt in set(prompts)), default=0)
    left = positions - length - isinstance(model, MaskedLanguageModel)
    if left < 1:
        raise error(
            f"`{name}` has {length} tokens (its start token with them), and the model has {positions} positions: there "
            "is no room for a new token. Shorten it."
        )
    return min(most, left)
