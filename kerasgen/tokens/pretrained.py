"""`PretrainedTokenizer`: the tokenizer that a model was trained with, as its own file says it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn, Protocol, Self

from kerasgen.errors import TokenArgumentError
from kerasgen.files.path_arguments import path_argument
from kerasgen.tokens import pretrained_files, text_decoding
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.base import IncrementalDecoder, Span, Tokenizer
from kerasgen.tokens.text_decoding import TextDecoder


class Codec(Protocol):
    """Contract of a tokenizer library: text to ids, and the bytes of each id."""

    file_name: str
    names: dict[int, str]
    pieces: dict[int, bytes]
    special: dict[str, int]
    added: tuple[AddedToken, ...]
    strips_first_space: bool

    def encode_batch(self, texts: Sequence[str], allowed: frozenset[str] = frozenset()) -> list[list[int]]:
        """Return the ids of each text; the names of special tokens in `allowed` become those."""
        ...

    def encode_with_spans(self, text: str, allowed: frozenset[str] = frozenset()) -> tuple[list[int], list[Span]]:
        """Return the ids of a text, and for each the characters that it writes or writes a part of."""
        ...

    def content(self) -> bytes:
        """Return the bytes of the codec's file."""
        ...


class PretrainedTokenizer(Tokenizer):
    """Tokenizer that gives exactly the ids of a transformers `tokenizer.json` or a SentencePiece model.

    The `tokenizers` or the `sentencepiece` library encodes. Decoding gives the text back where the tokenizer lets it:
    one that normalizes a text loses what it normalizes, and a byte without a token is dropped, as those libraries drop
    it. A special token's name inside a text stays text unless it is allowed.

    Args:
        codec: encodes, and knows the bytes of each id.
        end_tokens: end a text when they are generated; the first ends a document too.
        start_token: put before a document, or None.
        pad_token: fills masked positions, or None for the first end token.
        special_tokens: further tokens that `skip_special_tokens` leaves out.
        mask_token: stands for a token that a masked language model predicts, or None.

    Attributes:
        keras_hub_tokenizer: KerasHub's own of the same vocabulary, for those who take the model out of here; or None.
        proto: the SentencePiece model that a `tokenizer.json` was made of, for KerasHub's presets; or None.

    Raises:
        TokenArgumentError: a token is not in the vocabulary, or there is no end token.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        end_tokens: Sequence[str],
        start_token: str | None = None,
        pad_token: str | None = None,
        special_tokens: Iterable[str] = (),
        mask_token: str | None = None,
    ) -> None:
        if not end_tokens:
            raise TokenArgumentError(
                "The tokenizer has no end token, so a model could never finish a text. Name one: 'eos_token' in "
                "'tokenizer_config.json', or 'eos_token_id' in 'generation_config.json'."
            )
        self.codec = codec
        self._ids = {name: token_id for token_id, name in codec.names.items()}
        ends = tuple(dict.fromkeys(end_tokens))
        self.start_token, self.end_token, self.pad_token = start_token, ends[0], pad_token or ends[0]
        self._end_token_ids = tuple(map(self._id, ends))
        self.start_token_id = None if start_token is None else self._id(start_token)
        self.end_token_id = self._end_token_ids[0]
        self.pad_token_id = self._id(self.pad_token)
        self.mask_token, self.mask_token_id = mask_token, None if mask_token is None else self._id(mask_token)
        further = [name for name in (start_token, mask_token) if name is not None]
        named = (*ends, self.pad_token, *special_tokens, *further)
        special = codec.special | {name: self._id(name) for name in named}
        self._special = dict(sorted(special.items(), key=lambda item: item[1]))
        self._hidden = frozenset(self._special.values())
        self.added_tokens = codec.added
        self.strips_first_space = codec.strips_first_space
        self.vocabulary_size = max(codec.names) + 1
        self.keras_hub_tokenizer: Any = None
        self.proto: bytes | None = None
        self._digest: str | None = None

    @classmethod
    def from_directory(
        cls, directory: str | os.PathLike[str], *, end_token_ids: Sequence[int] = (), usual_end_token: str | None = None
    ) -> Self:
        """Return the tokenizer whose files lie in a directory: its own, or transformers'.

        `tokenizer.json` comes before `tokenizer.model`. What is put before a text, and which tokens end one, is as
        `tokenizer_config.json` and the template in `tokenizer.json` say.

        Args:
            directory: holds the files.
            end_token_ids: further ids that end a text, as `generation_config.json` and `config.json` name them.
            usual_end_token: ends a text where no file says what does.

        Raises:
            TokenizerError: there are no such files, or they can't be read.
            TokenArgumentError: nothing says how a text ends.
            MissingDependencyError: a SentencePiece model needs the package `sentencepiece`.
        """
        files = pretrained_files.read(
            path_argument(directory, TokenArgumentError, name="directory"), end_token_ids, usual_end_token
        )
        return cls(
            files.codec,
            end_tokens=files.end_tokens,
            start_token=files.start_token,
            pad_token=files.pad_token,
            special_tokens=files.special_tokens,
            mask_token=files.mask_token,
        )

    @property
    def is_json(self) -> bool:
        """Whether a `tokenizer.json` of transformers holds it."""
        return self.codec.file_name == pretrained_files.JSON_FILE

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Ids that end a text when a model generates them; the first ends documents too."""
        return self._end_token_ids

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, as the tokenizer's file writes them."""
        return dict(self._ids)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the tokens that `skip_special_tokens` leaves out, by name."""
        return dict(self._special)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; a special token's text stays text, and nothing is added at either end.

        Raises:
            TokenArgumentError: `text` is no `str`.
        """
        return self.codec.encode_batch([_checked(text)])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, computed on all cores.

        Raises:
            TokenArgumentError: as `encode`; also if `texts` is a single `str`.
        """
        if isinstance(texts, str):
            raise TokenArgumentError(f"`encode_batch` takes a list of texts. Received one text: {texts[:40]!r}.")
        return self.codec.encode_batch([_checked(text) for text in texts])

    def encode_with_special(self, text: str, allowed_special: str | Collection[str]) -> list[int]:
        """Return the ids of `text` in which the names of some special tokens become those; see `Tokenizer`."""
        allowed = self.allowed_special(allowed_special).intersection(self.codec.special)
        return self.codec.encode_batch([_checked(text)], allowed)[0]

    def encode_with_spans(self, text: str, allowed_special: str | Collection[str] = ()) -> tuple[list[int], list[Span]]:
        """Return the ids of `text`, and for each the characters that it writes or writes a part of."""
        allowed = self.allowed_special(allowed_special).intersection(self.codec.special)
        return self.codec.encode_with_spans(_checked(text), allowed)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the ids; bytes that are not UTF-8 become U+FFFD.

        Where the tokenizer puts a space before every text it encodes, the first token's is taken away again.
        """
        return text_decoding.decode(self, token_ids, skip_special_tokens=skip_special_tokens)

    def decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """Return a new incremental decoder."""
        return TextDecoder(self, skip_special_tokens=skip_special_tokens)

    def continuation_decoder(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """Return a new incremental decoder of ids that continue a text, which keeps a space before the first."""
        return TextDecoder(self, skip_special_tokens=skip_special_tokens, begins=False)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id stands for, an added first space included (a special token's: its name).

        Raises:
            TokenArgumentError: an id that the vocabulary does not have.
        """
        try:
            return self.codec.pieces[int(token_id)]
        except KeyError:
            self._refuse(token_id)

    def shown_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id adds to a text that has begun: none for a special token."""
        shown = self.token_bytes(token_id)
        return b"" if int(token_id) in self._hidden else shown

    def id_to_token(self, token_id: int) -> str:
        """Return the token of an id as the tokenizer's file writes it.

        Raises:
            TokenArgumentError: an id that the vocabulary does not have.
        """
        try:
            return self.codec.names[int(token_id)]
        except KeyError:
            self._refuse(token_id)

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of the tokenizer's file and the special tokens."""
        if self._digest is None:
            parts = [self._special, self._end_token_ids, self.start_token, self.pad_token]
            settings = json.dumps(parts if self.mask_token is None else [*parts, self.mask_token], allow_nan=False)
            content = self.codec.file_name.encode() + b"\n" + self.codec.content()
            self._digest = hashlib.sha256(settings.encode() + b"\n" + content).hexdigest()
        return self._digest

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the tokenizer's own file, and `tokenizer_config.json`, which transformers reads too.

        Raises:
            TokenizerError: the directory does not exist or can't be written to.
        """
        pretrained_files.write(path_argument(directory, TokenArgumentError, name="directory"), self)

    def to_tokenizer_json(self) -> str:
        """Return the text of the `tokenizer.json` that the tokenizer was read from.

        Raises:
            TokenArgumentError: it was read from another file.
        """
        if not self.is_json:
            raise TokenArgumentError(f"A {self.codec.file_name} holds this tokenizer, and no tokenizer.json.")
        return self.codec.content().decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretrainedTokenizer) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.codec.file_name}, vocabulary_size={self.vocabulary_size}, "
            f"end_token={self.end_token!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return pretrained_files.restored, (pretrained_files.state_of(self),)

    def _id(self, token: str) -> int:
        try:
            return self._ids[token]
        except KeyError:
            raise TokenArgumentError(
                f"The special token {token!r} is not in the vocabulary of {len(self._ids)} tokens. Name one that is, "
                "in 'tokenizer_config.json' ('eos_token', 'bos_token', 'pad_token')."
            ) from None

    def _refuse(self, token_id: object) -> NoReturn:
        raise TokenArgumentError(
            f"The vocabulary has no id {token_id!r}. Its {len(self._ids)} ids lie between 0 and "
            f"{self.vocabulary_size - 1}."
        )


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TokenArgumentError(f"Only `str` can be encoded. Received: {type(text).__name__} {text!r:.80}.")
    return text
