"""The tokenizer's fields of a GGUF file. The package `gguf` is imported late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import ExportArgumentError, ModelFormatError
from kerasgen.models.base import LanguageModel
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import GPT2, GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, Pretokenization
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.sentencepiece_codec import NORMAL, SentencePieceCodec

PREFIX: Final = "tokenizer.ggml."

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
    """Return llama.cpp's name of a tokenizer's pre-tokenization, or None where it has none."""
    return _PRE.get(tokenizer.pretokenization)


def written(model: LanguageModel) -> ByteLevelBPE | PretrainedTokenizer:
    """Return a model's tokenizer where llama.cpp has one of the same ids.

    Raises:
        ExportArgumentError: it has none.
    """
    tokenizer = model.tokenizer
    if isinstance(tokenizer, KerasHubTokenizer):
        tokenizer = tokenizer.as_byte_level() or tokenizer.as_pretrained()
    if isinstance(tokenizer, ByteLevelBPE):
        if pre_tokenizer_name(tokenizer) is None:
            raise ExportArgumentError(
                f"llama.cpp has no name for how this tokenizer cuts a text. Received: {tokenizer.pretokenization}. The "
                "exporter 'transformers' writes it."
            )
        return tokenizer
    codec = tokenizer.codec if isinstance(tokenizer, PretrainedTokenizer) else None
    is_plain = isinstance(codec, SentencePieceCodec) and codec.is_plain_bpe and not codec.further
    if isinstance(tokenizer, PretrainedTokenizer) and is_plain:
        return tokenizer
    raise ExportArgumentError(
        "The exporter 'gguf' writes tokenizers that llama.cpp has: byte-level BPE of one cut, and SentencePiece models "
        f"of the kind BPE that leave a text as it is. Received: {tokenizer!r}. The exporter 'transformers' writes what "
        "a tokenizer.json holds."
    )


@dataclass(frozen=True)
class GgufVocabulary:
    """What a file says of its tokenizer.

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
    def of(cls, tokenizer: ByteLevelBPE | PretrainedTokenizer) -> GgufVocabulary:
        """Return the fields of a file with this tokenizer; ids without a token are marked unused.

        Args:
            tokenizer: one that `written` returned.
        """
        from gguf import TokenType

        by_id = {token_id: token for token, token_id in tokenizer.vocabulary.items()}
        special = set(tokenizer.special_tokens.values())
        tokens, types = [], []
        for token_id in range(tokenizer.vocabulary_size):
            tokens.append(by_id.get(token_id) or _unused(token_id, tokenizer.vocabulary))
            kind = TokenType.CONTROL if token_id in special else TokenType.NORMAL
            types.append(int(kind if token_id in by_id else TokenType.UNUSED))
        starts = tokenizer.start_token_id is not None
        settings: dict[str, Any] = {
            "bos_token_id": tokenizer.start_token_id if starts else tokenizer.end_token_id,
            "eos_token_id": tokenizer.end_token_id,
            "padding_token_id": tokenizer.pad_token_id,
            "add_bos_token": starts,
        }
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
        held = [*keys, *(key for key in ("eot_token_id", "add_space_prefix") if PREFIX + key in fields)]
        return cls(tokens, types, merges, {key: fields[PREFIX + key] for key in held}, scores)

    def tokenizer(self) -> Tokenizer:
        """Return kerasgen's tokenizer of this vocabulary.

        Raises:
            ModelFormatError: it is of a kind, or cuts a text in a way, that is not known.
        """
        from kerasgen.tokens.gguf_vocabulary import from_gguf

        lists = {"tokens": self.tokens, "token_type": self.types, "merges": self.merges, "scores": self.scores}
        fields = {name: values for name, values in lists.items() if values} | self.settings
        return from_gguf({PREFIX + name: value for name, value in fields.items()})


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
    """Return a name that no token has, because llama.cpp requires distinct names."""
    name = f"[PAD{token_id}]"
    while name in vocabulary:
        name = f"[{name}]"
    return name
