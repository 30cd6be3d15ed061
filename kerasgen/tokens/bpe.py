"""Encodes and decodes texts as GPT-2 does: byte-level byte-pair encoding on the `tokenizers` library."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, Self, TypeVar

from kerasgen.errors import TokenArgumentError
from kerasgen.files.path_arguments import path_argument
from kerasgen.tokens import bpe_files, tokenizer_directory, tokenizer_json
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.base import Span, Tokenizer, spans_of
from kerasgen.tokens.bpe_encoder import BpeEncoder
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER, GPT2, Pretokenization, token_bytes
from kerasgen.tokens.special_tokens import AUTOMATIC, check_added_tokens, choose_special_tokens
from kerasgen.tokens.utf8_decoding import ByteTokenDecoder, decode_utf8

T = TypeVar("T")


class ByteLevelBPE(Tokenizer):
    """Byte-level byte-pair encoding whose ids equal those of OpenAI's GPT-2 encoder on every text.

    Text is cut by GPT-2's regular expression, or by the vocabulary's own, with no space put in front, and the UTF-8
    bytes of each piece are merged, the lowest rank first. `decode(encode(text)) == text` for every `str`, lone
    surrogates included (where GPT-2's encoder raises). A special token's name inside a text is encoded as the text that
    it is.

    Args:
        vocabulary: ids by token, tokens in GPT-2's printable characters (`Ġ` for a space); ids may have holes.
        merges: pairs, or `"left right"`, the first merged first.
        start_token: put before a document; `"auto"` is the end token, as GPT-2 and OPT do it; None for none.
        end_token: put after a document; `"auto"` is `</s>` if there is one, else `<|endoftext|>`.
        pad_token: fills what is masked out; `"auto"` is `<pad>` if there is one, else the end token.
        special_tokens: further tokens that `skip_special_tokens` leaves out.
        added_tokens: tokens of the vocabulary that text becomes before it is cut, as transformers' added tokens that
            are not special; one that is special too is only that. Blanks that `lstrip` or `rstrip` take are lost.
        end_tokens: further tokens that end a text when it is generated.
        usual_special_tokens: whether such as `<unk>` are special wherever the vocabulary holds them.
        pretokenization: how a text is cut where GPT-2's way is not the vocabulary's, such as Llama 3's.
        drops_missing_bytes: leave out a byte that the vocabulary has no token for, as transformers and llama.cpp do;
            without it such a text is an error.

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
        added_tokens: Sequence[AddedToken] = (),
        end_tokens: Sequence[str] = (),
        usual_special_tokens: bool = True,
        pretokenization: Pretokenization = GPT2,
        drops_missing_bytes: bool = False,
    ) -> None:
        self._vocabulary = dict(vocabulary)
        self._merges = [_pair(merge, n) for n, merge in enumerate(merges)]
        problem = bpe_files.first_problem(self._vocabulary, self._merges)
        if problem is not None:
            where = "" if problem.merge is None else f" (merge {problem.merge}, counted from 0)"
            raise TokenArgumentError(problem.message + where)
        ids = self._vocabulary
        special = choose_special_tokens(
            ids,
            self._merges,
            start_token=start_token,
            end_token=end_token,
            pad_token=pad_token,
            end_tokens=end_tokens,
            further=special_tokens,
            usual=usual_special_tokens,
        )
        self.start_token = special.start_token
        self.end_token = special.end_token
        self.pad_token = special.pad_token
        self.start_token_id = None if special.start_token is None else ids[special.start_token]
        self.end_token_id = ids[special.end_token]
        self.pad_token_id = ids[special.pad_token]
        self._ends = {token: ids[token] for token in special.end_tokens}
        self.vocabulary_size = max(ids.values()) + 1
        by_name = {token.content: token for token in added_tokens if token.content not in special.names}
        self.added_tokens = tuple(by_name.values())
        check_added_tokens(
            self.added_tokens, ids, {left + right for left, right in self._merges} | set(BYTE_OF_CHARACTER)
        )
        self._special_tokens = {token: ids[token] for token in special.names}
        self._tokens = {n: token for token, n in ids.items()}
        named = {*self._special_tokens, *by_name}
        self._bytes = {n: token_bytes(token, special=token in named) for token, n in ids.items()}
        self._shown = self._bytes | dict.fromkeys(self._special_tokens.values(), b"")
        self.pretokenization = pretokenization
        self._encoder = BpeEncoder(
            self._vocabulary,
            self._merges,
            self.added_tokens,
            self._special_tokens,
            pretokenization,
            drops_missing_bytes=drops_missing_bytes,
        )
        missing = bytes(byte for character, byte in BYTE_OF_CHARACTER.items() if character not in ids)
        self._dropped = missing if drops_missing_bytes else b""
        self._digest: str | None = None

    @classmethod
    def from_files(
        cls,
        vocabulary: str | os.PathLike[str],
        merges: str | os.PathLike[str],
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
        ids, pairs = bpe_files.read(
            path_argument(vocabulary, TokenArgumentError, name="vocabulary"),
            path_argument(merges, TokenArgumentError, name="merges"),
        )
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
        directory: str | os.PathLike[str],
        *,
        start_token: str | None = AUTOMATIC,
        end_token: str = AUTOMATIC,
        pad_token: str = AUTOMATIC,
    ) -> Self:
        """Return the tokenizer whose files lie in a directory: its own, transformers' or a KerasHub preset's.

        A `tokenizer.json` of transformers comes first, for it alone says how text is cut; then `vocab.json` or
        `vocabulary.json` with `merges.txt`, there or under `assets/tokenizer`. Special tokens are those of
        `tokenizer_config.json` or `special_tokens_map.json`, if it names them, unless they are given here; the start
        token is the one that transformers would put before a text.

        Raises:
            TokenizerError: no such files, or they describe another kind of tokenizer.
            TokenArgumentError: a special token is not in the vocabulary, or is one that text can become.
        """
        contents = tokenizer_directory.read_directory(path_argument(directory, TokenArgumentError, name="directory"))
        return cls.from_contents(contents, start_token=start_token, end_token=end_token, pad_token=pad_token)

    @classmethod
    def from_tokenizer_json(
        cls,
        path: str | os.PathLike[str],
        *,
        start_token: str | None = AUTOMATIC,
        end_token: str = AUTOMATIC,
        pad_token: str = AUTOMATIC,
        end_tokens: Sequence[str] = (),
    ) -> Self:
        """Return the tokenizer of a `tokenizer.json` of transformers, under whatever name it lies.

        The start token is the one that its post-processor puts before a text, if there is one. The file doesn't say
        which further tokens end a text.

        Raises:
            TokenizerError: it can't be read, or describes another kind of tokenizer.
            TokenArgumentError: a special token is not in the vocabulary, or is one that text can become.
        """
        contents = replace(tokenizer_json.read(path_argument(path, TokenArgumentError)), end_tokens=tuple(end_tokens))
        return cls.from_contents(contents, start_token=start_token, end_token=end_token, pad_token=pad_token)

    @classmethod
    def from_contents(
        cls,
        contents: bpe_files.Contents,
        *,
        start_token: str | None = AUTOMATIC,
        end_token: str = AUTOMATIC,
        pad_token: str = AUTOMATIC,
    ) -> Self:
        """Return the tokenizer of what files say, with the special tokens that are given here instead of theirs.

        Raises:
            TokenArgumentError: as the constructor.
        """
        return cls(
            contents.vocabulary,
            contents.merges,
            start_token=contents.start_token if start_token == AUTOMATIC else start_token,
            end_token=contents.end_token if end_token == AUTOMATIC else end_token,
            pad_token=contents.pad_token if pad_token == AUTOMATIC else pad_token,
            special_tokens=contents.special_tokens,
            added_tokens=contents.added_tokens,
            end_tokens=contents.end_tokens,
            usual_special_tokens=contents.usual_special_tokens,
            pretokenization=contents.pretokenization,
            drops_missing_bytes=contents.drops_missing_bytes,
        )

    def rebuilt(self, vocabulary: Mapping[str, int], merges: Sequence[str | tuple[str, str]]) -> Self:
        """Return a tokenizer of another vocabulary and other merges that keeps the special and the added tokens.

        Raises:
            TokenArgumentError: as the constructor; the vocabulary must hold those tokens.
        """
        pairs = [_pair(merge, n) for n, merge in enumerate(merges)]
        return self.from_contents(replace(self.contents(), vocabulary=dict(vocabulary), merges=pairs))

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Ids that end a text when it is generated; the first is `end_token_id`, which ends a document too."""
        return tuple(self._ends.values())

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
        return self._encoder.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, computed on all cores unless `TOKENIZERS_PARALLELISM` is `false`.

        Raises:
            TokenArgumentError: as `encode`; also if `texts` is a single `str`.
        """
        if isinstance(texts, str):
            raise TokenArgumentError(f"`encode_batch` takes a list of texts. Received one text: {texts[:40]!r}.")
        return self._encoder.encode_batch(texts)

    def encode_with_spans(self, text: str, allowed_special: str | Collection[str] = ()) -> tuple[list[int], list[Span]]:
        """Return the ids of `text`, and for each the characters that it writes or writes a part of."""
        if not self._dropped:
            return super().encode_with_spans(text, allowed_special)
        ids = self.encode_with_special(text, allowed_special)
        spans = spans_of([len(self._bytes[token_id]) for token_id in ids], text, self._dropped)
        return super().encode_with_spans(text, allowed_special) if spans is None else (ids, spans)

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
        return ByteTokenDecoder(partial(self._look_up, self._shown if skip_special_tokens else self._bytes))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that this id stands for (a special token's are its name in UTF-8).

        Raises:
            TokenArgumentError: an id that the vocabulary does not have.
        """
        return self._look_up(self._bytes, token_id)

    def id_to_token(self, token_id: int) -> str:
        """Return the token of an id in GPT-2's printable characters, as `vocabulary` names it.

        Raises:
            TokenArgumentError: an id that the vocabulary does not have.
        """
        return self._look_up(self._tokens, token_id)

    def encode_symbols(self, symbols: str) -> list[int]:
        """Return the ids that the merges make of one piece of text, given as the printable characters of its bytes.

        The bytes need not be whole characters of UTF-8.
        """
        return self._encoder.encode_symbols(symbols)

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of the vocabulary, the merges, the special and the added tokens."""
        if self._digest is None:
            parts: dict[str, Any] = {
                "kind": "byte-level BPE, cut as GPT-2 cuts",
                "vocabulary": sorted(self._vocabulary.items(), key=lambda item: item[1]),
                "merges": self._merges,
                "special_tokens": self._special_tokens,
                "start_token": self.start_token,
                "end_token": self.end_token,
                "pad_token": self.pad_token,
            }
            # Most vocabularies have none of these, and keep the digest that their token stores are named by.
            if self.added_tokens:
                parts["added_tokens"] = sorted(
                    json.dumps(token.to_json(), allow_nan=False) for token in self.added_tokens
                )
            if len(self._ends) > 1:
                parts["end_tokens"] = sorted(self._ends)
            if self.pretokenization != GPT2:
                parts["pretokenization"] = self.pretokenization.to_json()
            if self._dropped:
                parts["drops_missing_bytes"] = True
            text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
            self._digest = hashlib.sha256(text.encode()).hexdigest()
        return self._digest

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, which transformers reads too.

        Raises:
            TokenizerError: the directory does not exist or can't be written to.
        """
        tokenizer_directory.write_directory(
            path_argument(directory, TokenArgumentError, name="directory"), self.contents()
        )

    def to_tokenizer_json(self) -> str:
        """Return the text of a `tokenizer.json` of transformers, with the special tokens among its added tokens.

        As with GPT-2's own, a reader of that file takes a special token's name inside a text for the token.
        """
        return tokenizer_json.written(self.contents())

    def settings_text(self) -> str:
        """Return the text of the `tokenizer_config.json` that `save` writes: all but the vocabulary and the merges."""
        return tokenizer_directory.settings_text(self.contents())

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
        return self.from_contents, (self.contents(),)

    def contents(self) -> bpe_files.Contents:
        """Return all that the tokenizer is made of, as its files say it."""
        return bpe_files.Contents(
            vocabulary=self._vocabulary,
            merges=self._merges,
            start_token=self.start_token,
            end_token=self.end_token,
            pad_token=self.pad_token,
            special_tokens=tuple(self._special_tokens),
            added_tokens=self.added_tokens,
            end_tokens=tuple(self._ends),
            usual_special_tokens=False,
            pretokenization=self.pretokenization,
            drops_missing_bytes=bool(self._dropped),
        )

    def _look_up(self, table: Mapping[int, T], token_id: int) -> T:
        try:
            return table[int(token_id)]
        except KeyError:
            self._refuse(token_id)

    def _refuse(self, token_id: object) -> NoReturn:
        raise TokenArgumentError(
            f"The vocabulary has no id {token_id!r}. Its {len(self._vocabulary)} ids lie between "
            f"{min(self._bytes)} and {self.vocabulary_size - 1}."
        )


def _pair(merge: str | tuple[str, str] | Sequence[str], index: int) -> tuple[str, str]:
    pair = bpe_files.pair_of(merge)
    if pair is None:
        raise TokenArgumentError(
            f"A merge is a pair of tokens, or 'left right'. Received: {merge!r} (merge {index}, counted from 0)."
        )
    return pair
