"""Encodes prompts, with the special tokens in them that a call allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kerasgen.errors import GenerateArgumentError, TokenArgumentError
from kerasgen.tokens.base import Tokenizer


def encode_prompts(
    tokenizer: Tokenizer, texts: Sequence[str], allowed_special: str | Collection[str] = (), *, start: bool = True
) -> list[list[int]]:
    """Return the ids of each prompt, without the start token that is put before each.

    A prompt that begins with the start token, where that is allowed, gets no second one.

    Args:
        tokenizer: the tokenizer of the model.
        texts: the prompts.
        allowed_special: names of special tokens that become those, or `"all"`; others stay text.
        start: whether the start token is put before each; else one that a prompt itself begins with stays.

    Raises:
        GenerateArgumentError: a name is no special token's.
    """
    if not allowed_special:
        return tokenizer.encode_batch(texts)
    try:
        encoded = [tokenizer.encode_with_special(text, allowed_special) for text in texts]
    except TokenArgumentError as cause:
        raise GenerateArgumentError(str(cause)) from cause
    first = tokenizer.start_token_id if start else None
    return [ids[1:] if first is not None and ids[:1] == [first] else ids for ids in encoded]
