"""A vocabulary's special tokens: those that begin or end a text or fill a row, and that no text becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER

AUTOMATIC: Final = "auto"
"""Choose the special token by the vocabulary: see `ByteLevelBPE`."""

# Tokens that vocabularies of this family hold beside those that text can become.
_USUAL = ("<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>")


class SpecialTokens(NamedTuple):
    """The special tokens of a vocabulary, by their names.

    Args:
        start_token: put before a document, or None.
        end_token: put after a document.
        pad_token: fills what is masked out.
        names: all of them, each once, in the order of their ids.
    """

    start_token: str | None
    end_token: str
    pad_token: str
    names: tuple[str, ...]


def choose_special_tokens(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    start_token: str | None,
    end_token: str,
    pad_token: str,
    further: Sequence[str],
) -> SpecialTokens:
    """Return the special tokens of a vocabulary; the arguments are those of `ByteLevelBPE`.

    Raises:
        TokenArgumentError: one is not in the vocabulary, or is one that text can become.
    """
    reachable = set(BYTE_OF_CHARACTER) | {left + right for left, right in merges}
    if end_token == AUTOMATIC:
        # OPT's vocabulary holds GPT-2's end token too, and doesn't use it; GPT-2's holds no `</s>`.
        end_token = "</s>" if "</s>" in vocabulary and "</s>" not in reachable else "<|endoftext|>"
    if pad_token == AUTOMATIC:
        pad_token = "<pad>" if "<pad>" in vocabulary and "<pad>" not in reachable else end_token
    if start_token == AUTOMATIC:
        start_token = end_token
    named = [token for token in (start_token, end_token, pad_token) if token is not None]
    for token in (*named, *further):
        _check(token, vocabulary, reachable)
    usual = [token for token in _USUAL if token in vocabulary and token not in reachable]
    names = sorted({*named, *further, *usual}, key=vocabulary.__getitem__)
    return SpecialTokens(start_token, end_token, pad_token, tuple(names))


def _check(token: str, vocabulary: Mapping[str, int], reachable: set[str]) -> None:
    if token not in vocabulary:
        raise TokenArgumentError(
            f"The special token {token!r} is not in the vocabulary of {len(vocabulary)} tokens. "
            "Name the one that is (`end_token=…`, `start_token=…`, `pad_token=…`)."
        )
    if token in reachable:
        raise TokenArgumentError(
            f"{token!r} can't be a special token: ordinary text becomes it. Name a token that no merge makes."
        )
