"""Encodes documents to one flat array of token ids, with the place and the length in characters of each document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.chunks import portions

if TYPE_CHECKING:
    from kerasgen.corpora.base import Document


@dataclass(frozen=True, eq=False)
class EncodedDocuments:
    """The ids of many documents, one after another.

    Args:
        token_ids: int32 `(tokens,)`; each document is its start token (where there is one), its text, its end token.
        offsets: int64 `(documents + 1,)`; document i is `token_ids[offsets[i]:offsets[i + 1]]`.
        characters: int64 `(documents,)`; Unicode code points of each text.
    """

    token_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    characters: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.token_ids[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, int64 `(documents,)`."""
        return np.diff(self.offsets)

    @property
    def targets(self) -> int:
        """Tokens that a model can be asked to predict: all but each document's first."""
        return len(self.token_ids) - len(self)

    def digest(self) -> str:
        """Return 64 hexadecimal digits that stand for the ids and where each document begins."""
        sha256 = hashlib.sha256()
        sha256.update(np.ascontiguousarray(self.token_ids).data)
        sha256.update(np.ascontiguousarray(self.offsets).data)
        return sha256.hexdigest()


def encode_documents(documents: Iterable[Document], tokenizer: Tokenizer) -> EncodedDocuments:
    """Return the ids of the documents, each with its start token (if the tokenizer has one) and its end token.

    Args:
        documents: drawn once, a thousand at a time.
        tokenizer: the tokenizer whose ids they become.
    """
    pieces: list[NDArray[np.int32]] = []
    characters: list[int] = []
    for portion in portions(documents):
        texts = [document.text for document in portion]
        pieces += ids_of(texts, tokenizer)
        characters += map(len, texts)
    lengths = [len(piece) for piece in pieces]
    return EncodedDocuments(
        token_ids=np.concatenate(pieces) if pieces else np.zeros(0, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        characters=np.asarray(characters, dtype=np.int64),
    )


def ids_of(texts: Sequence[str], tokenizer: Tokenizer) -> list[NDArray[np.int32]]:
    """Return each text's ids between start token (if the tokenizer has one) and end token, int32 `(tokens,)`."""
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    end = [tokenizer.end_token_id]
    return [np.asarray(start + ids + end, dtype=np.int32) for ids in tokenizer.encode_batch(texts)]
