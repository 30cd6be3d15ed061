"""`KerasHubTokenizer` adapts the tokenizer of any other KerasHub preset to kerasgen's tokenizer contract."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Self

from kerasgen import limits
from kerasgen.errors import ModelFormatError, TokenArgumentError, TokenizerError
from kerasgen.files.path_arguments import path_argument
from kerasgen.models.hub_codecs import BytePairs
from kerasgen.tokens import text_decoding
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.base import IncrementalDecoder, Span, Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.bpe_files import parse_json, read_text
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.pretrained import Codec, PretrainedTokenizer
from kerasgen.tokens.sentencepiece_codec import SentencePieceCodec
from kerasgen.tokens.text_decoding import TextDecoder

SETTINGS_FILE = "assets/tokenizer/tokenizer_settings.json"
"""In a preset, what KerasHub's own files have no place for."""


@contextlib.contextmanager
def left_open_files() -> Iterator[None]:
    """Silence the warning about the vocabulary file that KerasHub's SentencePiece tokenizer leaves open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@dataclass(frozen=True)
class TokenizerSettings:
    """Settings of a transformers directory's tokenizer for which KerasHub's class has no place.

    Args:
        start_token: put before a document, or None.
        end_tokens: end a text when they are generated; the first ends a document.
        pad_token: fills masked positions, or None for the end token.
        special_tokens: what `skip_special_tokens` leaves out.
        added_tokens: what text becomes before it is cut.
        names: special tokens by the arguments of KerasHub's class, where it does not write them down itself; a list of
            several is last.
    """

    start_token: str | None
    end_tokens: tuple[str, ...]
    pad_token: str | None
    special_tokens: tuple[str, ...]
    added_tokens: tuple[AddedToken, ...] = ()
    names: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TokenizerSettings | None:
        """Return what a preset's file says, or None if there is none.

        Raises:
            TokenizerError: it is damaged.
        """
        if not path.is_file():
            return None
        content = parse_json(read_text(path), path)
        try:
            lists: dict[str, Any] = {name: tuple(map(str, content[name])) for name in ("end_tokens", "special_tokens")}
            added = tuple(AddedToken.read(token) for token in content["added_tokens"])
            named = {name: content[name] for name in ("start_token", "pad_token", "names")}
            return cls(added_tokens=added, **named, **lists)
        except (KeyError, TypeError, AttributeError, TokenArgumentError) as cause:
            raise TokenizerError(f"{path} is damaged: {cause!r}. Save the model again.", path=path) from cause

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments of KerasHub's class."""
        return {name: set(value) if isinstance(value, list) else value for name, value in self.names.items()}

    def to_text(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


class KerasHubTokenizer(Tokenizer):
    """The vocabulary of a KerasHub tokenizer, read and written without KerasHub's TensorFlow paths.

    Byte-level BPE families (Llama 3, Qwen, GPT-NeoX, …) cut text as the family does and merge with the `tokenizers`
    library, and every text comes back from its ids, Qwen's in the form NFC. SentencePiece families (Gemma, Llama 2,
    Mistral, …) use the `sentencepiece` library, and text comes back where the model lets it: one that normalizes loses
    what it normalizes, and a lone surrogate becomes U+FFFD. A special token's name inside a text stays text, except
    where a SentencePiece model declares it as user-defined.

    Args:
        keras_hub_tokenizer: a `keras_hub.tokenizers.BytePairTokenizer` or `SentencePieceTokenizer`, with vocabulary.
        settings: what is known besides; None for what KerasHub's class says.

    Raises:
        ModelFormatError: it is of another kind, has no vocabulary, or no end token.
        MissingDependencyError: the `sentencepiece` package is needed.
    """

    def __init__(self, keras_hub_tokenizer: Any, settings: TokenizerSettings | None = None) -> None:
        self.keras_hub_tokenizer = keras_hub_tokenizer
        self.settings = settings
        self.added_tokens = () if settings is None else settings.added_tokens
        kind = type(keras_hub_tokenizer).__name__
        end = getattr(keras_hub_tokenizer, "end_token_id", None)
        if end is None and settings is None:
            raise ModelFormatError(f"The {kind} has no end token, so a model could never finish a text.")
        attributes = getattr(keras_hub_tokenizer, "_special_token_attrs", [])
        named = {getattr(keras_hub_tokenizer, attribute, None) for attribute in attributes}
        if settings is not None:
            named = {*settings.special_tokens, *settings.end_tokens, settings.start_token, settings.pad_token}
        special = {str(token): int(keras_hub_tokenizer.token_to_id(token)) for token in named if token is not None}
        self._codec: Codec
        if getattr(keras_hub_tokenizer, "proto", None) is not None:
            self._codec = SentencePieceCodec(keras_hub_tokenizer.proto, Path(f"the {kind}'s proto"), special)
        elif getattr(keras_hub_tokenizer, "merges", None) is not None:
            self._codec = BytePairs(
                kind, keras_hub_tokenizer.vocabulary, keras_hub_tokenizer.merges, special, self.added_tokens
            )
        else:
            raise ModelFormatError(
                f"A {kind} is neither a byte-pair nor a SentencePiece tokenizer with a vocabulary, the two kinds that "
                "can be read exactly."
            )
        start = getattr(keras_hub_tokenizer, "start_token_id", None)
        pad = getattr(keras_hub_tokenizer, "pad_token_id", None)
        # Llama 3's has a second one, at which KerasHub's `generate` ends too.
        ends = [end, getattr(keras_hub_tokenizer, "end_token2_id", None)]
        if settings is not None:
            start, pad = (
                None if token is None else special[token] for token in (settings.start_token, settings.pad_token)
            )
            ends = [special[token] for token in settings.end_tokens]
        self.start_token_id = None if start is None else int(start)
        self._end_token_ids = tuple(dict.fromkeys(int(token_id) for token_id in ends if token_id is not None))
        self.end_token_id = end = self._end_token_ids[0]
        # KerasHub pads Llama 3 and Qwen with id 0, an ordinary token; the end token stands for no text.
        self.pad_token_id = int(end) if pad is None or pad not in special.values() else int(pad)
        self.vocabulary_size = max(self._codec.pieces) + 1
        self._special = frozenset(special.values())
        self._names = dict(sorted(special.items(), key=lambda item: item[1]))
        self.strips_first_space = self._codec.strips_first_space
        self._kind = kind

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the tokens that `skip_special_tokens` leaves out, by name."""
        return dict(self._names)

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Ids that end a text when a model generates them; the first ends documents too."""
        return self._end_token_ids

    def as_byte_level(self) -> ByteLevelBPE | None:
        """Return the byte-level BPE whose ids are this tokenizer's, or None where it is of another kind."""
        contents = self._codec.contents() if isinstance(self._codec, BytePairs) else None
        if contents is None:
            return None
        names = {token_id: token for token, token_id in contents.vocabulary.items()}
        return ByteLevelBPE.from_contents(
            replace(
                contents,
                start_token=None if self.start_token_id is None else names[self.start_token_id],
                end_token=names[self.end_token_id],
                pad_token=names[self.pad_token_id],
                special_tokens=tuple(names[token_id] for token_id in sorted(self._special)),
                added_tokens=self.added_tokens,
                end_tokens=tuple(names[token_id] for token_id in self._end_token_ids),
            )
        )

    def as_pretrained(self) -> PretrainedTokenizer:
        """Return the tokenizer of the same SentencePiece model, or of a `tokenizer.json` that gives the same ids."""
        codec = self._codec
        if isinstance(codec, BytePairs):
            codec = JsonCodec(codec.to_tokenizer_json(), Path(JsonCodec.file_name))
        names = {token_id: token for token, token_id in self._names.items()}
        return PretrainedTokenizer(
            codec,
            end_tokens=[names[token_id] for token_id in self._end_token_ids],
            start_token=None if self.start_token_id is None else names[self.start_token_id],
            pad_token=names[self.pad_token_id],
            special_tokens=tuple(self._names),
        )

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> Self:
        """Return the tokenizer that `save` wrote, or the one of a KerasHub preset, on the backend that Keras runs on.

        Raises:
            TokenizerError: the directory holds no KerasHub tokenizer that can be read.
        """
        from kerasgen.models import hub_import

        hub_import.load()
        folder = path_argument(directory, TokenArgumentError, name="directory")
        settings = TokenizerSettings.read(folder / SETTINGS_FILE)
        try:
            config = limits.read_json(folder / "tokenizer.json")
            config["config"] |= {} if settings is None else settings.arguments
            tokenizer = hub_import.tokenizer_in_python(lambda: _deserialized(config, folder))
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise TokenizerError(f"{str(folder)!r} holds no KerasHub tokenizer that can be read: {cause}.") from cause
        return cls(tokenizer, settings)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, with nothing added at either end.

        Raises:
            TokenArgumentError: `text` is no `str`.
        """
        return self._codec.encode_batch([_checked(text)])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, computed on all cores."""
        return self._codec.encode_batch([_checked(text) for text in texts])

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the ids; bytes that are not UTF-8 become U+FFFD.

        Where the family puts a space before every text it encodes, the first token's is taken away again.
        """
        return text_decoding.decode(self, token_ids, skip_special_tokens=skip_special_tokens)

    def decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """Return a new incremental decoder."""
        return TextDecoder(self, skip_special_tokens=skip_special_tokens)

    def continuation_decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """Return a new incremental decoder of ids that go on a text: a space before the first is the text's."""
        return TextDecoder(self, skip_special_tokens=skip_special_tokens, begins=False)

    def encode_with_special(self, text: str, allowed_special: str | Collection[str]) -> list[int]:
        """Return the ids of `text` in which the names of some special tokens become those; see `Tokenizer`."""
        allowed = self.allowed_special(allowed_special)
        if isinstance(self._codec, SentencePieceCodec):
            return self._codec.encode_batch([_checked(text)], allowed)[0]
        return super().encode_with_special(_checked(text), allowed)

    def encode_with_spans(self, text: str, allowed_special: str | Collection[str] = ()) -> tuple[list[int], list[Span]]:
        """Return the ids of `text`, and for each the characters that it writes or writes a part of."""
        return self._codec.encode_with_spans(_checked(text), self.allowed_special(allowed_special))

    def shown_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id adds to a text that has begun: none for a special token."""
        shown = self.token_bytes(token_id)
        return b"" if int(token_id) in self._special else shown

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id stands for, an added first space included (a special token's: its name)."""
        try:
            return self._codec.pieces[int(token_id)]
        except KeyError:
            self._refuse(token_id)

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of the vocabulary, the cut and the special tokens."""
        ends = (self.start_token_id, self.end_token_id, self.pad_token_id, sorted(self._special))
        further = (self.end_token_ids[1:], self.added_tokens)
        settings = repr(ends) + (repr(further) if any(further) else "")
        return hashlib.sha256(settings.encode() + b"\n" + self._codec.content()).hexdigest()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and its assets as a KerasHub preset has them.

        Raises:
            TokenizerError: the directory does not exist.
        """
        folder = path_argument(directory, TokenArgumentError, name="directory")
        if not folder.is_dir():
            raise TokenizerError(f"There is no directory {str(folder)!r} to save a tokenizer into. Make it first.")
        self.keras_hub_tokenizer.save_to_preset(str(folder))
        self.save_settings(folder)

    def save_settings(self, directory: str | os.PathLike[str]) -> None:
        """Write, into a preset's directory, what KerasHub's own files have no place for, if there is anything."""
        if self.settings is not None:
            path = path_argument(directory, TokenArgumentError, name="directory") / SETTINGS_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.settings.to_text(), encoding="utf-8")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._kind}, vocabulary_size={self.vocabulary_size})"

    def _refuse(self, token_id: object) -> NoReturn:
        raise TokenArgumentError(
            f"The vocabulary has no id {token_id!r}. Its ids lie between 0 and {self.vocabulary_size - 1}."
        )


def _deserialized(config: dict[str, Any], folder: Path) -> Any:
    """Return the tokenizer that a preset's configuration describes, with the files of the preset's folder.

    Raises:
        TypeError: it describes another layer.
    """
    import keras
    import keras_hub

    tokenizer = keras.saving.deserialize_keras_object(config)
    if not isinstance(tokenizer, keras_hub.tokenizers.Tokenizer):
        raise TypeError(f"it describes a {type(tokenizer).__name__}")
    with left_open_files():
        tokenizer.load_preset_assets(str(folder))
    return tokenizer


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TokenArgumentError(f"Only `str` can be encoded. Received: {type(text).__name__} {text!r:.80}.")
    return text
