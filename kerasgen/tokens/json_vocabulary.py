"""Changes the pieces of a `tokenizer.json`: BPE, on bytes or on characters, and Unigram."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.bpe_files import pair_of
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER, to_characters
from kerasgen.tokens.vocabulary import merges_of

BYTE_TOKENS: Final = frozenset(f"<0x{byte:02X}>" for byte in range(256))
MARGIN: Final = 1e-3
"""By so much is a piece likelier in a Unigram than its two parts, at least."""


class _JsonVocabulary:
    """What both kinds share: the content of the file, and its special and added tokens.

    Args:
        codec: of the file.

    Attributes:
        whole: ids of tokens that no piece is made of: special and added ones, those of bytes, the unknown one.
    """

    def __init__(self, codec: JsonCodec) -> None:
        self.content: dict[str, Any] = json.loads(codec.content())
        self.model: dict[str, Any] = self.content["model"]
        self.codec = codec
        self.names = codec.names
        self.ids = {name: token_id for token_id, name in codec.names.items()}
        self.has_bytes = bool(self.model.get("byte_fallback")) and self.ids.keys() >= BYTE_TOKENS
        self.entries = list(self.content.get("added_tokens") or [])
        unknown = self._unknown()
        names = {entry["content"] for entry in self.entries} | ({unknown} if unknown else set())
        names |= set(BYTE_TOKENS) if self.has_bytes else set()
        self.whole = {self.ids[name] for name in names if name in self.ids}

    def normalized(self, text: str) -> str:
        normalizer = self.codec.library.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def spelling(self, character: str) -> tuple[int, ...]:
        if character in self.ids:
            return ()
        if self.has_bytes:
            found = tuple(self.ids[f"<0x{byte:02X}>"] for byte in character.encode())
            return found if len(found) > 1 else ()
        unknown = self._unknown()
        return (self.ids[unknown],) if unknown in self.ids else ()

    def made_of(self, name: str) -> list[int]:
        """Return the ids that the model makes of symbols that were normalized and cut already."""
        return [int(token.id) for token in self.codec.library.model.tokenize(name)]

    def pair(self, left: int, right: int) -> bool:
        name = self.names[left] + self.names[right]
        cut = self.codec.library.pre_tokenizer
        if name in self.ids or self.made_of(name) != [left, right]:
            return False
        return cut is None or len(cut.pre_tokenize_str(self._before_cut(left, right))) == 1

    def written(self, ids: Mapping[str, int]) -> JsonCodec:
        """Return the codec of the changed content, whose tokens have these ids.

        Raises:
            TokenArgumentError: the `tokenizers` library reads other ids.
        """
        content = dict(self.content)
        content["added_tokens"] = [{**entry, "id": ids[entry["content"]]} for entry in self.entries]
        content["post_processor"] = _renumbered(content.get("post_processor"), ids)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        codec = JsonCodec(text, Path(JsonCodec.file_name))
        if codec.names != {token_id: name for name, token_id in ids.items()}:
            raise TokenArgumentError(
                "The vocabulary of this tokenizer.json can't be changed: its tokens would get other ids when it is "
                "read. Use vocabulary='keep'."
            )
        return codec

    def _before_cut(self, left: int, right: int) -> str:
        return self.names[left] + self.names[right]

    def _unknown(self) -> str | None:
        raise NotImplementedError


class JsonBpe(_JsonVocabulary):
    """Byte-pair encoding: merges in their order, of bytes as printable characters or of characters.

    Args:
        codec: of the file.

    Raises:
        TokenArgumentError: its tokens are marked by where in a word they stand.
    """

    def __init__(self, codec: JsonCodec) -> None:
        super().__init__(codec)
        for setting in ("continuing_subword_prefix", "end_of_word_suffix"):
            if self.model.get(setting):
                raise TokenArgumentError(
                    f"A vocabulary with {setting}={self.model[setting]!r} can't be changed: its tokens say where in a "
                    "word they stand. Use vocabulary='keep'."
                )
        self.pairs = [pair for pair in map(pair_of, self.model["merges"]) if pair is not None]
        self.ranks: dict[tuple[str, str], int] = {}
        for rank, pair in enumerate(self.pairs):
            self.ranks.setdefault(pair, rank)

    def required(self, used: Collection[int]) -> set[int]:
        """Return the ids that must stay; see `EditableVocabulary`."""
        names = set(BYTE_OF_CHARACTER) if self.codec.is_byte_level else set()
        if not self.codec.is_byte_level and not self.has_bytes:
            names |= {name for name in self.ids if len(name) == 1}
        for name in (self.names[token_id] for token_id in used):
            names |= {name, *name}
            names.update(left + right for left, right in merges_of(name, self.ranks))
        return self.whole | {self.ids[name] for name in names if name in self.ids}

    def reduced(self, ids: Sequence[int]) -> JsonCodec:
        """Return the codec of these ids alone, numbered in this order."""
        return self._of({self.names[token_id]: n for n, token_id in enumerate(ids)}, self.pairs)

    def spelling(self, character: str) -> tuple[int, ...]:
        """Return the ids of a character that shall be one token; see `EditableVocabulary`."""
        if not self.codec.is_byte_level:
            return super().spelling(character)
        symbols = to_characters(character.encode())
        starts = {symbols[:end] for end in range(2, len(symbols) + 1)}
        if character.isascii() or not self.ids.keys() >= set(symbols):
            return ()
        if any(self.ids.get(start) in self.whole for start in starts):
            return ()
        return tuple(self.made_of(symbols))

    def with_characters(self, counts: Mapping[str, int], total: int) -> tuple[JsonCodec, list[tuple[int, ...]]]:
        """Return the codec that has these characters too; those of bytes are merged before anything else."""
        new: dict[str, tuple[int, ...]] = {}
        first: dict[tuple[str, str], None] = {}
        for character in counts:
            if not self.codec.is_byte_level:
                new[character] = self.spelling(character)
                continue
            symbols = to_characters(character.encode())
            for end in range(2, len(symbols) + 1):
                if symbols[:end] not in self.ids:
                    new[symbols[:end]] = tuple(self.made_of(symbols[:end]))
                first[(symbols[: end - 1], symbols[end - 1])] = None
        return self._with(new, [*first, *(pair for pair in self.pairs if pair not in first)])

    def with_pairs(self, pairs: Sequence[tuple[int, int, int]], total: int) -> tuple[JsonCodec, list[tuple[int, ...]]]:
        """Return the codec that merges these pairs too, after everything else."""
        named = {(self.names[left], self.names[right]): (left, right) for left, right, _ in pairs}
        new = {left + right: ids for (left, right), ids in named.items()}
        if self.codec.is_byte_level:
            return self._with(new, [*self.pairs, *named])
        # As SentencePiece merges by pieces: whichever two make one.
        known = self.ids.keys() | new.keys()
        cuts = [(piece[:at], piece[at:]) for piece in new for at in range(1, len(piece))]
        return self._with(new, [*self.pairs, *(pair for pair in cuts if known >= set(pair))])

    def _with(
        self, new: Mapping[str, tuple[int, ...]], pairs: Iterable[tuple[str, str]]
    ) -> tuple[JsonCodec, list[tuple[int, ...]]]:
        order = sorted(self.names)
        ids = {name: n for n, name in enumerate((*(self.names[token_id] for token_id in order), *new))}
        return self._of(ids, pairs, all_named=True), [*((token_id,) for token_id in order), *new.values()]

    def _of(self, ids: Mapping[str, int], pairs: Iterable[tuple[str, str]], *, all_named: bool = False) -> JsonCodec:
        # An added token that the model does not name gets the next id behind all that it does.
        named = self.model["vocab"].keys() | (ids.keys() if all_named or self._names_added() else set())
        self.content["model"] = {
            **self.model,
            "vocab": {name: token_id for name, token_id in ids.items() if name in named},
            "merges": [[*pair] for pair in pairs if ids.keys() >= {*pair, "".join(pair)}],
        }
        return self.written(ids)

    def _names_added(self) -> bool:
        return bool(max(self.model["vocab"].values()) > min((int(entry["id"]) for entry in self.entries), default=0))

    def _before_cut(self, left: int, right: int) -> str:
        if not self.codec.is_byte_level:
            return super()._before_cut(left, right)
        return (self.codec.pieces[left] + self.codec.pieces[right]).decode("utf-8", "ignore")

    def _unknown(self) -> str | None:
        return self.model.get("unk_token")


class JsonUnigram(_JsonVocabulary):
    """Unigram: a piece and its log probability; of all ways to cut a text, the likeliest.

    Tokens that a file adds behind the pieces stay behind them, so the rows of new pieces stand before theirs.

    Args:
        codec: of the file.
    """

    def __init__(self, codec: JsonCodec) -> None:
        self.pieces: list[tuple[str, float]] = [
            (str(piece), float(score)) for piece, score in json.loads(codec.content())["model"]["vocab"]
        ]
        super().__init__(codec)
        self.scores = [score for _, score in self.pieces]

    def required(self, used: Collection[int]) -> set[int]:
        """Return the ids that must stay, that of the least score among them, by which the unknown one's is reckoned."""
        names = {character for token_id in used for character in self.names[token_id]} & self.ids.keys()
        if not self.has_bytes:
            names |= {name for name in self.ids if len(name) == 1}
        least = self.scores.index(min(self.scores))
        return self.whole | set(used) | {least} | {self.ids[name] for name in names}

    def reduced(self, ids: Sequence[int]) -> JsonCodec:
        """Return the codec of these ids alone, numbered in this order."""
        return self._of([self.pieces[n] for n in ids if n < len(self.pieces)], [self.names[n] for n in ids])

    def with_characters(self, counts: Mapping[str, int], total: int) -> tuple[JsonCodec, list[tuple[int, ...]]]:
        """Return the codec that has these characters too, with the score of their frequency."""
        least, most = min(self.scores), self._most()
        new = [(character, min(max(math.log(count / total), least), most)) for character, count in counts.items()]
        return self._with(new, [self.spelling(character) for character in counts])

    def with_pairs(self, pairs: Sequence[tuple[int, int, int]], total: int) -> tuple[JsonCodec, list[tuple[int, ...]]]:
        """Return the codec that has these pairs as pieces too, each likelier than its parts."""
        new = []
        for left, right, count in pairs:
            score = likelihood(self.scores[left], self.scores[right], count / total, min(self.scores), self._most())
            new.append((self.names[left] + self.names[right], score))
        return self._with(new, [(left, right) for left, right, _ in pairs])

    def _most(self) -> float:
        usual = [score for n, score in enumerate(self.scores) if n not in self.whole]
        return max(usual, default=0.0)

    def _with(
        self, new: Sequence[tuple[str, float]], sources: Sequence[tuple[int, ...]]
    ) -> tuple[JsonCodec, list[tuple[int, ...]]]:
        count = len(self.pieces)
        behind = [n for n in sorted(self.names) if n >= count]
        names = [name for name, _ in (*self.pieces, *new)] + [self.names[n] for n in behind]
        made_of = [*((n,) for n in range(count)), *sources, *((n,) for n in behind)]
        return self._of([*self.pieces, *new], names), made_of

    def _of(self, pieces: Sequence[tuple[str, float]], names: Sequence[str]) -> JsonCodec:
        ids = {name: n for n, name in enumerate(names)}
        unknown = self._unknown()
        self.content["model"] = {
            **self.model,
            "vocab": [list(piece) for piece in pieces],
            "unk_id": None if unknown is None else ids[unknown],
        }
        return self.written(ids)

    def _unknown(self) -> str | None:
        place = self.model.get("unk_id")
        return None if place is None else self.pieces[int(place)][0]


def likelihood(left: float, right: float, share: float, least: float, most: float) -> float:
    """Return the score of a piece in a Unigram: the logarithm of its share, but more than its parts have together."""
    return min(max(math.log(share), left + right + MARGIN, least), most)


def _renumbered(processor: Any, ids: Mapping[str, int]) -> Any:
    """Return a post-processor whose special tokens have their new ids."""
    if not isinstance(processor, dict):
        return processor
    renumbered = dict(processor)
    if isinstance(renumbered.get("special_tokens"), dict):
        renumbered["special_tokens"] = {
            name: {**token, "ids": [ids[token_name] for token_name in token["tokens"]]}
            for name, token in renumbered["special_tokens"].items()
        }
    if isinstance(renumbered.get("processors"), list):
        renumbered["processors"] = [_renumbered(step, ids) for step in renumbered["processors"]]
    return renumbered
