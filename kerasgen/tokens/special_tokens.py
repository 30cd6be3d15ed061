"""A vocabulary's special tokens: those that begin or end a text or fill a row, and that no text becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.added_tokens import AddedToken
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
        end_tokens: all that end a text when it is generated; `end_token` is the first.
        names: all of them, each once, in the order of their ids.
    """

    start_token: str | None
    end_token: str
    pad_token: str
    end_tokens: tuple[str, ...]
    names: tuple[str, ...]


def choose_special_tokens(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    start_token: str | None,
    end_token: str,
    pad_token: str,
    end_tokens: Sequence[str],
    further: Sequence[str],
    usual: bool,
) -> SpecialTokens:
    """Return the special tokens of a vocabulary; the arguments are those of `ByteLevelBPE`.

    Args:
        vocabulary: as there.
        merges: as there.
        start_token: as there.
        end_token: as there.
        pad_token: as there.
        end_tokens: as there.
        further: other special tokens.
        usual: whether tokens that vocabularies of this family hold, such as `<unk>`, are special too.

    Raises:
        TokenArgumentError: one is not in the vocabulary, or is one that text can become.
    """
    reachable = set(BYTE_OF_CHARACTER) | {left + right for left, right in merges}
    if end_token == AUTOMATIC:
        # OPT's vocabulary holds GPT-2's end token too, and doesn't use it; GPT-2's holds no `</s>`.
        end_token = "</s>" if "</s>" in vocabulary and "</s>" not in reachable else "<|endoftext|>"
        if end_token not in vocabulary:
            raise TokenArgumentError(
                f"The vocabulary of {len(vocabulary)} tokens has no end token: nothing names one, and it holds neither "
                "'</s>' nor '<|endoftext|>'. Name one: `end_token=…`, or, in a directory of transformers, 'eos_token' "
                "in 'tokenizer_config.json' or 'eos_token_id' in 'generation_config.json'."
            )
    if pad_token == AUTOMATIC:
        pad_token = "<pad>" if "<pad>" in vocabulary and "<pad>" not in reachable else end_token
    if start_token == AUTOMATIC:
        start_token = end_token
    ends = tuple(dict.fromkeys((end_token, *end_tokens)))
    named = [token for token in (start_token, *ends, pad_token) if token is not None]
    for token in (*named, *further):
        _check(token, vocabulary, reachable)
    usual_tokens = [token for token in _USUAL if usual and token in vocabulary and token not in reachable]
    names = sorted({*named, *further, *usual_tokens}, key=vocabulary.__getitem__)
    return SpecialTokens(start_token, end_token, pad_token, ends, tuple(names))


def check_added_tokens(added: Sequence[AddedToken], vocabulary: Mapping[str, int], reachable: set[str]) -> None:
    """Check that each added token has an id, and that its id is no other text's.

    Raises:
        TokenArgumentError: one has not, or merges make its id of other bytes.
    """
    for token in added:
        if token.content not in vocabulary:
            raise TokenArgumentError(
                f"The added token {token.content!r} is not in the vocabulary of {len(vocabulary)} tokens. Give it one."
            )
        if token.content in reachable and not token.content.isascii():
            raise TokenArgumentError(
                f"The added token {token.content!r} has the id of other bytes, which those characters stand for in "
                "a byte-level vocabulary, so its id would not become its text again. Take it out of the added tokens."
            )


def _check(token: str, vocabulary: Mapping[str, int], reachable: set[str]) -> None:
    if token not in vocabulary:
        raise TokenArgumentError(
            f"The special token {token!r} is not in the vocabulary of {len(vocabulary)} tokens. "
            "Name one that is: `end_token=…`, `start_token=…`, `pad_token=…`, or, in a directory of transformers, in "
            "its 'tokenizer_config.json' ('eos_token', 'bos_token', 'pad_token', 'additional_special_tokens')."
        )
    if token in reachable:
        raise TokenArgumentError(
            f"{token!r} can't be a special token: ordinary text becomes it. Name a token that no merge makes."
        )
