"""Text to GPT-2's token ids and back: byte-level byte-pair encoding on the `tokenizers` library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens import bpe_files
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.decoding import ByteTokenDecoder, decode_utf8
from kerasgen.tokens.forks import mind_forks
from kerasgen.tokens.pretokenization import (
    BYTE_OF_CHARACTER,
    CHARACTER_OF_BYTE,
    STAND_IN,
    SURROGATE,
    pre_tokenizer,
    splitter,
    to_bytes,
    to_characters,
)

if TYPE_CHECKING:
    import tokenizers

AUTOMATIC: Final = "auto"
"""Choose the special token by the vocabulary: see `ByteLevelBPE`."""

# Tokens that vocabularies of this family hold beside those that text can become.
_USUAL_SPECIAL_TOKENS = ("<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>")

# Texts handed to the library at once: its answers hold far more than ids, and are dropped between.
_TEXTS_AT_ONCE = 1024


class ByteLevelBPE(Tokenizer):
    """Byte-level byte-pair encoding whose ids equal those of OpenAI's GPT-2 encoder on every text.

    Text is cut by GPT-2's regular expression, with no space put in front, and the UTF-8 bytes of each piece are merged,
    the lowest rank first. `decode(encode(text)) == text` for every `str`, lone surrogates included (where GPT-2's
    encoder raises). A special token's name inside a text is encoded as the text that it is.

    Args:
        vocabulary: ids by token, tokens in GPT-2's printable characters (`Ġ` for a space); ids may have holes.
        merges: pairs, or `"left right"`, the first merged first.
        start_token: put before a document; `"auto"` is the end token, as GPT-2 and OPT do it; None for none.
        end_token: put after a document; `"auto"` is `</s>` if there is one, else `<|endoftext|>`.
        pad_token: fills what is masked out; `"auto"` is `<pad>` if there is one, else the end token.
        special_tokens: further tokens that `skip_special_tokens` leaves out, besides the usual ones (such as `<unk>`).

    Raises:
        TokenArgumentError: the vocabulary and the merges don't fit each other, a special token is not in the
            vocabulary, or is one that text can become.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[str | tuple[str, str]],
        *,
        start_token: str | None = AUTOMATIC,
        end_token: str = AUTOMATIC,
        pad_token: str = AUTOMATIC,
        special_tokens: Sequence[str] = (),
    ) -> None:
        self._vocabulary = dict(vocabulary)
        self._merges = [_pair(merge, n) for n, merge in enumerate(merges)]
        problem = bpe_files.first_problem(self._vocabulary, self._merges)
        if problem is not None:
            where = "" if problem.merge is None else f" (merge {problem.merge}, counted from 0)"
            raise TokenArgumentError(problem.message + where)
        reachable = set(BYTE_OF_CHARACTER) | {left + right for left, right in self._merges}
        ids = self._vocabulary
        if end_token == AUTOMATIC:
            # OPT's vocabulary holds GPT-2's end token too, and doesn't use it; GPT-2's holds no `</s>`.
            end_token = "</s>" if "</s>" in ids and "</s>" not in reachable else "<|endoftext|>"
        if pad_token == AUTOMATIC:
            pad_token = "<pad>" if "<pad>" in ids and "<pad>" not in reachable else end_token
        if start_token == AUTOMATIC:
            start_token = end_token
        named = [token for token in (start_token, end_token, pad_token) if token is not None]
        for token in (*named, *special_tokens):
            _check_special(token, ids, reachable)
        usual = [token for token in _USUAL_SPECIAL_TOKENS if token in ids and token not in reachable]
        special = dict.fromkeys((*named, *special_tokens, *usual))

        self.start_token = start_token
        self.end_token = end_token
        self.pad_token = pad_token
        self.start_token_id = None if start_token is None else ids[start_token]
        self.end_token_id = ids[end_token]
        self.pad_token_id = ids[pad_token]
        self.vocabulary_size = max(ids.values()) + 1
        self._special_tokens = {token: ids[token] for token in sorted(special, key=ids.__getitem__)}
        self._tokens = {n: token for token, n in ids.items()}
        self._bytes = {n: _bytes_of(token, token in special) for token, n in ids.items()}
        self._shown = self._bytes | dict.fromkeys(self._special_tokens.values(), b"")
        self._present_bytes = bytes(byte for byte, character in CHARACTER_OF_BYTE.items() if character in ids)
        self._rust = _rust_tokenizer(self._vocabulary, self._merges)
        self._splitter = splitter()
        self._digest: str | None = None

    @classmethod
    def from_files(
        cls,
        vocabulary: str | Path,
        merges: str | Path,
        *,
        start_token: str | None = AUTOMATIC,
        end_token: str = AUTOMATIC,
        pad_token: str = AUTOMATIC,
        special_tokens: Sequence[str] = (),
    ) -> Self:
        """Return the tokenizer of a vocabulary file and a merges file, such as `vocab.json` and `merges.txt`.

        Args:
            vocabulary: a JSON object, tokens to ids; KerasHub calls it `vocabulary.json`.
            merges: a pair per line; a first line that begins with `#version` is no pair.
            start_token: as for `ByteLevelBPE`.
            end_token: as for `ByteLevelBPE`.
            pad_token: as for `ByteLevelBPE`.
            special_tokens: as for `ByteLevelBPE`.

        Raises:
            TokenizerError: a file is missing or malformed; `.path` and `.line` say where.
            TokenArgumentError: a special token is not in the vocabulary, or is one that text can become.
        """
        ids, pairs = bpe_files.read(Path(vocabulary), Path(merges))
        return cls(
            ids,
            pairs,
            start_token=start_token,
            end_token=end_token,
            pad_token=pad_token,
            special_tokens=special_tokens,
        )

    @classmethod
    def from_directory(
        cls,
        directory: str | Path,
        *,
        start_token: str | None = AUTOMATIC,
        end_token: str = AUTOMATIC,
        pad_token: str = AUTOMATIC,
    ) -> Self:
        """Return the tokenizer whose files lie in a directory: its own, transformers' or a KerasHub preset's.

        A `tokenizer.json` of transformers comes first, for it alone says how text is cut; then `vocab.json` or
        `vocabulary.json` with `merges.txt`, there or under `assets/tokenizer`. Special tokens are those of
        `tokenizer_config.json` or `special_tokens_map.json`, if it names them, unless they are given here.

        Raises:
            TokenizerError: no such files, or they describe another kind of tokenizer.
            TokenArgumentError: a special token is not in the vocabulary, or is one that text can become.
        """
        found = bpe_files.read_directory(Path(directory))
        return cls(
            found.vocabulary,
            found.merges,
            start_token=found.start_token if start_token == AUTOMATIC else start_token,
            end_token=found.end_token if end_token == AUTOMATIC else end_token,
            pad_token=found.pad_token if pad_token == AUTOMATIC else pad_token,
            special_tokens=found.special_tokens,
        )

    @classmethod
    def from_tokenizer_json(
        cls,
        path: str | Path,
        *,
        start_token: str | None = AUTOMATIC,
        end_token: str = AUTOMATIC,
        pad_token: str = AUTOMATIC,
    ) -> Self:
        """Return the tokenizer of a `tokenizer.json` of transformers, under whatever name it lies.

        Raises:
            TokenizerError: it can't be read, or describes another kind of tokenizer.
            TokenArgumentError: a special token is not in the vocabulary, or is one that text can become.
        """
        found = bpe_files.read_tokenizer_json(Path(path))
        return cls(
            found.vocabulary,
            found.merges,
            start_token=start_token,
            end_token=end_token,
            pad_token=pad_token,
            special_tokens=found.special_tokens,
        )

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, as KerasHub's `GPT2Tokenizer(vocabulary=…)` takes them."""
        return dict(self._vocabulary)

    @property
    def merges(self) -> list[str]:
        """The merges as `"left right"`, as KerasHub's `GPT2Tokenizer(merges=…)` takes them."""
        return [f"{left} {right}" for left, right in self._merges]

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the tokens that text never becomes and `skip_special_tokens` leaves out, by name."""
        return dict(self._special_tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; a special token's text stays text, and nothing is added at either end.

        Raises:
            TokenArgumentError: `text` is no `str`, or holds a byte that the vocabulary has no token for.
        """
        self._check(text)
        try:
            ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeError):
            return self._encode_surrogates(text)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, computed on all cores unless `TOKENIZERS_PARALLELISM` is `false`.

        Raises:
            TokenArgumentError: as `encode`; also if `texts` is a single `str`.
        """
        if isinstance(texts, str):
            raise TokenArgumentError(f"`encode_batch` takes a list of texts. Received one text: {texts[:40]!r}.")
        mind_forks()
        return [ids for some in _portions(texts) for ids in self._encode_some(some)]

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the ids; bytes that are not UTF-8 become U+FFFD, as GPT-2's decoder writes them.

        Args:
            token_ids: ids, in any sequence or one-dimensional array.
            skip_special_tokens: leave out what `special_tokens` names, instead of writing its name.

        Raises:
            TokenArgumentError: an id that the vocabulary does not have.
        """
        table = self._shown if skip_special_tokens else self._bytes
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        try:
            return decode_utf8(b"".join(map(table.__getitem__, ids)))
        except KeyError as error:
            self._refuse(error.args[0])
        except TypeError as error:
            raise TokenArgumentError(f"`decode` takes a list of ids. Received: {token_ids!r}.") from error

    def decoder(self, *, skip_special_tokens: bool = False) -> ByteTokenDecoder:
        """Return a new incremental decoder; joined, its answers equal `decode` of all the ids."""
        table = self._shown if skip_special_tokens else self._bytes

        def token_bytes(token_id: int) -> bytes:
            try:
                return table[int(token_id)]
            except KeyError:
                self._refuse(token_id)

        return ByteTokenDecoder(token_bytes)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id stands for (a special token's are its name in UTF-8).

        Raises:
            TokenArgumentError: an id that the vocabulary does not have.
        """
        try:
            return self._bytes[int(token_id)]
        except KeyError:
            self._refuse(token_id)

    def id_to_token(self, token_id: int) -> str:
        """Return the token of an id in GPT-2's printable characters, as `vocabulary` names it.

        Raises:
            TokenArgumentError: an id that the vocabulary does not have.
        """
        try:
            return self._tokens[int(token_id)]
        except KeyError:
            self._refuse(token_id)

    def encode_symbols(self, symbols: str) -> list[int]:
        """Return the ids that the merges make of one piece of text, given as the printable characters of its bytes.

        The bytes need not be whole characters of UTF-8.
        """
        return [token.id for token in self._rust.model.tokenize(symbols)]

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of the vocabulary, the merges and the special tokens."""
        if self._digest is None:
            parts = {
                "kind": "byte-level BPE, cut as GPT-2 cuts",
                "vocabulary": sorted(self._vocabulary.items(), key=lambda item: item[1]),
                "merges": self._merges,
                "special_tokens": self._special_tokens,
                "start_token": self.start_token,
                "end_token": self.end_token,
                "pad_token": self.pad_token,
            }
            text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
            self._digest = hashlib.sha256(text.encode()).hexdigest()
        return self._digest

    def save(self, directory: str | Path) -> None:
        """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, which transformers reads too.

        Raises:
            TokenizerError: the directory does not exist or can't be written to.
        """
        bpe_files.write_directory(Path(directory), self._contents())

    def to_tokenizer_json(self) -> str:
        """Return the text of a `tokenizer.json` of transformers, with the special tokens as its added tokens.

        As with GPT-2's own, a reader of that file takes a special token's name inside a text for the token.
        """
        return bpe_files.tokenizer_json(self._contents())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteLevelBPE) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(vocabulary_size={self.vocabulary_size}, merges={len(self._merges)}, "
            f"end_token={self.end_token!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._contents())

    def _contents(self) -> bpe_files.Contents:
        return bpe_files.Contents(
            vocabulary=self._vocabulary,
            merges=self._merges,
            start_token=self.start_token,
            end_token=self.end_token,
            pad_token=self.pad_token,
            special_tokens=tuple(self._special_tokens),
        )

    def _encode_some(self, texts: Sequence[str]) -> list[list[int]]:
        for text in texts:
            self._check(text)
        try:
            return [encoding.ids for encoding in self._rust.encode_batch_fast(texts, add_special_tokens=False)]
        except (TypeError, UnicodeError):  # a lone surrogate is in one of them
            return [self.encode(text) for text in texts]

    def _encode_surrogates(self, text: str) -> list[int]:
        """Cut the text with stand-ins for its surrogates, which Rust's strings can't hold, and merge the real bytes."""
        pieces = self._splitter.pre_tokenize_str(SURROGATE.sub(STAND_IN, text))
        model = self._rust.model
        return [
            token.id
            for _, (start, end) in pieces
            for token in model.tokenize(to_characters(text[start:end].encode("utf-8", "surrogatepass")))
        ]

    def _check(self, text: str) -> None:
        if not isinstance(text, str):
            raise TokenArgumentError(f"Only `str` can be encoded. Received: {type(text).__name__} {text!r:.80}.")
        if len(self._present_bytes) == 256:
            return
        # Without its byte's token, the library would drop a character and say nothing.
        absent = text.encode("utf-8", "surrogatepass").translate(None, self._present_bytes)
        if absent:
            raise TokenArgumentError(
                f"The vocabulary has no token for the byte 0x{absent[0]:02X}, so this text can't be encoded: "
                f"{text[:40]!r}. It lacks {256 - len(self._present_bytes)} of the 256 bytes; add them as tokens."
            )

    def _refuse(self, token_id: object) -> NoReturn:
        raise TokenArgumentError(
            f"The vocabulary has no id {token_id!r}. Its {len(self._vocabulary)} ids lie between "
            f"{min(self._bytes)} and {self.vocabulary_size - 1}."
        )


def _pair(merge: str | tuple[str, str] | Sequence[str], index: int) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise TokenArgumentError(
            f"A merge is a pair of tokens, or 'left right'. Received: {merge!r} (merge {index}, counted from 0)."
        )
    return parts[0], parts[1]


def _check_special(token: str, ids: Mapping[str, int], reachable: set[str]) -> None:
    if token not in ids:
        raise TokenArgumentError(
            f"The special token {token!r} is not in the vocabulary of {len(ids)} tokens. "
            "Name the one that is (`end_token=…`, `start_token=…`, `pad_token=…`)."
        )
    if token in reachable:
        raise TokenArgumentError(
            f"{token!r} can't be a special token: ordinary text becomes it. Name a token that no merge makes."
        )


def _bytes_of(token: str, special: bool) -> bytes:
    if not special and all(character in BYTE_OF_CHARACTER for character in token):
        return to_bytes(token)
    return token.encode()


def _rust_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers.models import BPE

    # Special tokens are not told to the library: it would look for their names in every text.
    tokenizer = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer()
    return tokenizer


def _rebuild(kind: type[ByteLevelBPE], contents: bpe_files.Contents) -> ByteLevelBPE:
    return kind(
        contents.vocabulary,
        contents.merges,
        start_token=contents.start_token,
        end_token=contents.end_token,
        pad_token=contents.pad_token,
        special_tokens=contents.special_tokens,
    )


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        yield texts[start : start + _TEXTS_AT_ONCE]
