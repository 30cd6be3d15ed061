"""What a GGUF file says of its tokenizer. The package `gguf` is imported late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen.errors import ModelFormatError
from kerasgen.tokens.pretokenization import GPT2, GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, Pretokenization

if TYPE_CHECKING:
    from kerasgen.tokens.bpe import ByteLevelBPE


# llama.cpp's name of each way to cut a text; those of one regular expression differ in whether it ignores merges.
_PRE: Final[Mapping[Pretokenization, str]] = {
    GPT2: "gpt-2",
    Pretokenization(GPT2_PATTERN, single_digits=True): "smollm",
    Pretokenization(single_digits=True): "smollm",
    Pretokenization(LLAMA3_PATTERN, ignore_merges=True): "llama-bpe",
    Pretokenization(LLAMA3_PATTERN): "dbrx",
    Pretokenization(QWEN2_PATTERN): "qwen2",
}


def pre_tokenizer_name(tokenizer: ByteLevelBPE) -> str | None:
    """Return what llama.cpp calls a tokenizer's way to cut a text, or None where it has no such way."""
    return _PRE.get(tokenizer.pretokenization)


@dataclass(frozen=True)
class GgufVocabulary:
    """What a file says of its tokenizer.

    Args:
        tokens: by id.
        types: GGUF's type of each token.
        merges: `"left right"`, the first merged first.
        settings: kind of the tokenizer, ids of special tokens and whether a text gets a start token, by GGUF's keys.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    settings: dict[str, Any]

    @classmethod
    def of(cls, tokenizer: ByteLevelBPE) -> GgufVocabulary:
        """Return what a file of this tokenizer, whose cut has a name, has to say; ids without a token are unused."""
        from gguf import TokenType

        by_id = {token_id: token for token, token_id in tokenizer.vocabulary.items()}
        special = set(tokenizer.special_tokens.values())
        tokens, types = [], []
        for token_id in range(tokenizer.vocabulary_size):
            tokens.append(by_id.get(token_id) or _unused(token_id, tokenizer.vocabulary))
            kind = TokenType.CONTROL if token_id in special else TokenType.NORMAL
            types.append(int(kind if token_id in by_id else TokenType.UNUSED))
        starts = tokenizer.start_token_id is not None
        settings = {
            "model": "gpt2",
            "pre": pre_tokenizer_name(tokenizer),
            "bos_token_id": tokenizer.start_token_id if starts else tokenizer.end_token_id,
            "eos_token_id": tokenizer.end_token_id,
            "padding_token_id": tokenizer.pad_token_id,
            "add_bos_token": starts,
        }
        for token_id in tokenizer.end_token_ids[1:]:  # llama.cpp has a key for a second one, at which texts end too
            settings["eot_token_id"] = token_id
        return cls(tokens, types, list(tokenizer.merges), settings)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> GgufVocabulary:
        """Return what a file's fields say.

        Raises:
            KeyError: one is missing.
        """
        prefix = "tokenizer.ggml."
        tokens, types, merges = (list(fields[prefix + name]) for name in ("tokens", "token_type", "merges"))
        keys = ("model", "pre", "bos_token_id", "eos_token_id", "padding_token_id", "add_bos_token")
        held = [*keys, *(key for key in ("eot_token_id",) if prefix + key in fields)]
        return cls(tokens, types, merges, {key: fields[prefix + key] for key in held})

    def tokenizer(self) -> ByteLevelBPE:
        """Return kerasgen's tokenizer of this vocabulary.

        Raises:
            ModelFormatError: it is of a kind, or cuts a text in a way, that is not known.
        """
        from gguf import TokenType

        from kerasgen.tokens.bpe import ByteLevelBPE

        kind, pre = self.settings["model"], self.settings["pre"]
        cut = next((cut for cut, name in _PRE.items() if name == pre), None)
        if kind != "gpt2" or cut is None:
            raise ModelFormatError(
                f"Its tokenizer is a {kind!r} with the pre-tokenizer {pre!r}; 'gpt2' with one of "
                f"{', '.join(map(repr, _PRE.values()))} is read. Export the model again."
            )
        used = {
            token: token_id
            for token_id, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind != TokenType.UNUSED
        }
        start, end, pad = (self.tokens[self.settings[f"{name}_token_id"]] for name in ("bos", "eos", "padding"))
        start_token = start if self.settings["add_bos_token"] else None
        second = self.settings.get("eot_token_id")
        special = [token for token, kind in zip(self.tokens, self.types, strict=True) if kind == TokenType.CONTROL]
        return ByteLevelBPE(
            used,
            self.merges,
            start_token=start_token,
            end_token=end,
            pad_token=pad,
            special_tokens=special,
            end_tokens=[] if second is None else [self.tokens[second]],
            usual_special_tokens=False,
            pretokenization=cut,
        )


def read(path: Path) -> tuple[GgufVocabulary, str, int]:
    """Return what a file says of its tokenizer, and its model's architecture and positions.

    Raises:
        ModelFormatError: it is no GGUF file with a vocabulary.
    """
    import gguf

    try:
        fields = {str(name): field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
        architecture = str(fields["general.architecture"])
        return GgufVocabulary.from_fields(fields), architecture, int(fields[f"{architecture}.context_length"])
    except (ValueError, KeyError, IndexError, OSError, TypeError) as cause:
        raise ModelFormatError(f"{path} can't be read as a GGUF file: {cause!r}. Copy or export it again.") from cause


def _unused(token_id: int, vocabulary: dict[str, int]) -> str:
    """A name that no token has: llama.cpp wants each to have one of its own."""
    name = f"[PAD{token_id}]"
    while name in vocabulary:
        name = f"[{name}]"
    return name
