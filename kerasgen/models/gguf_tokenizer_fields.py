"""The tokenizer's fields of a GGUF file. The package `gguf` is imported late."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import ModelFormatError
from kerasgen.models.gguf_tokenizer_writing import pre_tokenizer_name
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.json_codec import SPACE
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.sentencepiece_codec import NORMAL, USER_DEFINED, SentencePieceCodec

PREFIX: Final = "tokenizer.ggml."
STARTS_TEXTS: Final = "kerasgen_starts_texts"
"""A key of kerasgen's own: a text begins with the start token, which llama.cpp shall not write by itself."""


@dataclass(frozen=True)
class GgufVocabulary:
    """The tokenizer's fields of a GGUF file.

    Args:
        tokens: by id.
        types: GGUF's type of each token.
        merges: `"left right"`, the first merged first.
        settings: kind of the tokenizer, ids of special tokens and whether a text gets a start token, by GGUF's keys.
        scores: the score of each token, where the one with the highest is merged first; none where there are merges.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    settings: dict[str, Any]
    scores: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, tokenizer: ByteLevelBPE | PretrainedTokenizer, *, starts_all: bool = True) -> GgufVocabulary:
        """Return the fields of a file with this tokenizer; ids without a token are marked unused.

        Args:
            tokenizer: one that `gguf_tokenizer_writing.of` returned.
            starts_all: whether llama.cpp shall put the start token before whatever it reads. It puts one before
                conversations too; where it must not, a key of kerasgen's says that texts begin with one.
        """
        from gguf import TokenType

        by_id = {token_id: token for token, token_id in tokenizer.vocabulary.items()}
        special = set(tokenizer.special_tokens.values())
        added = {token.content for token in tokenizer.added_tokens}
        tokens, types = [], []
        for token_id in range(tokenizer.vocabulary_size):
            tokens.append(by_id.get(token_id) or _unused(token_id, tokenizer.vocabulary))
            usual = TokenType.USER_DEFINED if tokens[-1] in added else TokenType.NORMAL
            kind = TokenType.CONTROL if token_id in special else usual
            types.append(int(kind if token_id in by_id else TokenType.UNUSED))
        starts = tokenizer.start_token_id is not None
        settings: dict[str, Any] = {
            "bos_token_id": tokenizer.start_token_id if starts else tokenizer.end_token_id,
            "eos_token_id": tokenizer.end_token_id,
            "padding_token_id": tokenizer.pad_token_id,
            "add_bos_token": starts and starts_all,
        }
        if starts and not starts_all:
            settings[STARTS_TEXTS] = True
        for token_id in tokenizer.end_token_ids[1:]:  # llama.cpp has a key for a second one, at which texts end too
            settings["eot_token_id"] = token_id
        if isinstance(tokenizer, ByteLevelBPE):
            settings |= {"model": "gpt2", "pre": pre_tokenizer_name(tokenizer)}
            return cls(tokens, types, list(tokenizer.merges), settings)
        codec = tokenizer.codec
        assert isinstance(codec, SentencePieceCodec)
        known = codec.kinds()
        types = [TokenType.CONTROL if n in special and known[n] == NORMAL else known[n] for n in range(len(tokens))]
        types = list(map(int, types))
        # llama.cpp looks for user-defined pieces before it writes a space as "▁".
        spelled = [
            token.replace(SPACE, " ") if kind == USER_DEFINED else token
            for token, kind in zip(tokens, types, strict=True)
        ]
        if len(set(spelled)) == len(spelled):
            tokens = spelled
        settings |= {"model": "llama", "pre": "default", "add_space_prefix": codec.strips_first_space}
        return cls(tokens, types, [], settings, codec.scores(len(tokens)))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> GgufVocabulary:
        """Parse a file's fields.

        Raises:
            KeyError: one is missing.
        """
        is_bpe = fields[PREFIX + "model"] != "llama"
        tokens, types = (list(fields[PREFIX + name]) for name in ("tokens", "token_type"))
        merges = list(fields[PREFIX + "merges"]) if is_bpe else []
        scores = [] if is_bpe else [float(score) for score in fields[PREFIX + "scores"]]
        keys = ("model", "pre", "bos_token_id", "eos_token_id", "padding_token_id", "add_bos_token")
        held = [*keys, *(key for key in ("eot_token_id", "add_space_prefix", STARTS_TEXTS) if PREFIX + key in fields)]
        return cls(tokens, types, merges, {key: fields[PREFIX + key] for key in held}, scores)

    def tokenizer(self) -> Tokenizer:
        """Return kerasgen's tokenizer of this vocabulary.

        Raises:
            ModelFormatError: it is of a kind, or cuts a text in a way, that is not known.
        """
        from kerasgen.tokens.gguf_tokenizer_reading import from_gguf

        lists = {"tokens": self.tokens, "token_type": self.types, "merges": self.merges, "scores": self.scores}
        fields = {name: values for name, values in lists.items() if values} | self.settings
        return from_gguf({PREFIX + name: value for name, value in fields.items()})


def reader(path: Path) -> Any:
    """Return the package's `GGUFReader` of a file, which reads a list of texts or of numbers at once.

    The package takes each of some 150,000 texts and numbers of a vocabulary by itself, in slices of a memory map's own
    class, which takes a second.
    """
    import gguf
    import numpy as np

    class PlainReader(gguf.GGUFReader):  # type: ignore[misc]
        @property
        def data(self) -> Any:
            return self._array

        @data.setter
        def data(self, mapped: Any) -> None:
            self._array = np.asarray(mapped)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != gguf.GGUFValueType.ARRAY or self.endianess != gguf.GGUFEndian.LITTLE:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
            start, number = orig_offs + 12, int(count[0])
            if kind[0] == gguf.GGUFValueType.STRING:
                parts = _texts(self._array, start, number)
                end = start + sum(8 + len(text) for text in parts)
            elif kind[0] in self.gguf_scalar_to_np and kind[0] != gguf.GGUFValueType.BOOL:
                numbers = self._get(start, self.gguf_scalar_to_np[gguf.GGUFValueType(kind[0])], number)
                if len(numbers) != number:
                    raise ValueError("the file ends within a list")
                parts, end = list(numbers.reshape(-1, 1)), start + numbers.nbytes
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            types = [gguf.GGUFValueType.ARRAY, *([gguf.GGUFValueType(kind[0])] if number else [])]
            return end - orig_offs, [kind, count, *parts], list(range(2, 2 + number)), types

    return PlainReader(path)


def _texts(array: Any, start: int, number: int) -> list[memoryview]:
    """Return the bytes of so many texts of a file, which lie one after another, each after its length.

    Raises:
        ValueError: the file ends within them.
    """
    view, at, texts = memoryview(array), start, []
    length_at = struct.Struct("<Q").unpack_from
    try:
        for _ in range(number):
            (length,) = length_at(view, at)
            text = view[at + 8 : at + 8 + length]
            if len(text) != length:
                raise ValueError("the file ends within a text")
            texts.append(text)
            at += 8 + length
    except struct.error as cause:
        raise ValueError("the file ends within a list of texts") from cause
    return texts


def read(path: Path) -> tuple[GgufVocabulary, str, int]:
    """Return what a file says of its tokenizer, and its model's architecture and positions.

    Raises:
        ModelFormatError: it is no GGUF file with a vocabulary.
    """
    try:
        fields = {str(name): field.contents() for name, field in reader(path).fields.items()}
        architecture = str(fields["general.architecture"])
        return GgufVocabulary.from_fields(fields), architecture, int(fields[f"{architecture}.context_length"])
    except (ValueError, KeyError, IndexError, OSError, TypeError) as cause:
        raise ModelFormatError(f"{path} can't be read as a GGUF file: {cause!r}. Copy or export it again.") from cause


def _unused(token_id: int, vocabulary: dict[str, int]) -> str:
    """Return a name that no token has, because llama.cpp requires distinct names."""
    name = f"[PAD{token_id}]"
    while name in vocabulary:
        name = f"[{name}]"
    return name
