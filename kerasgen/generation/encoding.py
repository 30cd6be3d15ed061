"""Encodes prompts, with the special tokens in them that a call allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kerasgen.errors import GenerateArgumentError, TokenArgumentError
from kerasgen.tokens.base import Tokenizer


def encode_prompts(
    tokenizer: Tokenizer, texts: Sequence[str], allowed_special: str | Collection[str] = ()
) -> list[list[int]]:
    """Return the ids of each prompt, without the start token that is put before each.

    A prompt that begins with the start token, where that is allowed, gets no second one.

    Args:
        tokenizer: the tokenizer of the model.
        texts: the prompts.
        allowed_special: names of special tokens that become those, or `"all"`; others stay text.

    Raises:
        GenerateArgumentError: a name is no special token's.
    """
    if not allowed_special:
        return tokenizer.encode_batch(texts)
    try:
        encoded = [tokenizer.encode_with_special(text, allowed_special) for text in texts]
    except TokenArgumentError as cause:
        raise GenerateArgumentError(str(cause)) from cause
    start = tokenizer.start_token_id
    return [ids[1:] if start is not None and ids[:1] == [start] else ids for ids in encoded]
