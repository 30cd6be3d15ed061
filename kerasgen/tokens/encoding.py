"""Encodes documents to one flat array of token ids, with the place and the length in characters of each document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerasgen.chat.template import ChatTemplate
from kerasgen.corpora.base import Document
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.chunks import portions
from kerasgen.tokens.parts import DocumentParts, EncodedParts, encoded, learned_characters


@dataclass(frozen=True, eq=False)
class EncodedDocuments:
    """The ids of many documents, one after another.

    Args:
        token_ids: int32 `(tokens,)`; each document is its start token (where there is one), its text, its end token.
        offsets: int64 `(documents + 1,)`; document i is `token_ids[offsets[i]:offsets[i + 1]]`.
        characters: int64 `(documents,)`; Unicode code points of each text that are learned.
        parts: which tokens are learned and which only read; None where all are learned.
        rejected: the worse texts of as many documents, prompts included, one without any tokens for a document that has
            none; None where no document has one.
    """

    token_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    characters: NDArray[np.int64]
    parts: EncodedParts | None = None
    rejected: EncodedDocuments | None = None

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
        """Tokens that a model can learn to predict: all but each document's first and those that are only read."""
        return int(self.targets_by_document.sum())

    @property
    def targets_by_document(self) -> NDArray[np.int64]:
        """The same of each document, int64 `(documents,)`."""
        if self.parts is None:
            return np.maximum(self.lengths - 1, 0)
        return self.parts.learned(np.minimum(self.offsets[:-1] + 1, self.offsets[1:]), self.offsets[1:])

    def digest(self) -> str:
        """Return 64 hexadecimal digits that stand for the ids, where each document begins, and what is learned."""
        sha256 = hashlib.sha256()
        sha256.update(np.ascontiguousarray(self.token_ids).data)
        sha256.update(np.ascontiguousarray(self.offsets).data)
        if self.parts is not None:
            self.parts.digest_into(sha256)
        return digest_of_pairs(sha256.hexdigest(), self.rejected)

    def learning_all(self) -> EncodedDocuments:
        """Return the same documents, of which every token is learned, without worse ones."""
        if self.parts is None:
            return self
        return EncodedDocuments(self.token_ids, self.offsets, self.parts.characters)


def encode_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, chat: ChatTemplate | None = None
) -> EncodedDocuments:
    """Return the ids of the documents, each with its start token (if the tokenizer has one) and its end token.

    Args:
        documents: drawn once, a thousand at a time.
        tokenizer: the tokenizer whose ids they become.
        chat: writes conversations; see `kerasgen.tokens.parts.encoded`.
    """
    pieces: list[NDArray[np.int32]] = []
    characters: list[int] = []
    parts: list[DocumentParts | None] = []
    worse: list[WithParts] = []
    worse_characters: list[int] = []
    for portion in portions(documents):
        with_parts = encoded_with_parts(portion, tokenizer, chat)
        pieces += [ids for ids, _ in with_parts]
        parts += [of_document for _, of_document in with_parts]
        characters += map(learned_characters, portion)
        worse += rejected_with_parts(portion, tokenizer, chat)
        worse_characters += map(rejected_characters, portion)
    rejected = None
    if any(len(ids) for ids, _ in worse):
        rejected = of_documents([ids for ids, _ in worse], worse_characters, [of for _, of in worse])
    return of_documents(pieces, characters, parts, rejected)


def digest_of_pairs(better: str, rejected: EncodedDocuments | None) -> str:
    """Return the digest of documents of which the digest without their worse texts is given."""
    return better if rejected is None else hashlib.sha256((better + rejected.digest()).encode()).hexdigest()


def of_documents(
    pieces: Sequence[NDArray[np.int32]],
    characters: Sequence[int],
    parts: Sequence[DocumentParts | None],
    rejected: EncodedDocuments | None = None,
) -> EncodedDocuments:
    """Return documents that are given one by one.

    Args:
        pieces: the ids of each.
        characters: of each.
        parts: of each, None for one that is learned as a whole.
        rejected: as in the result.
    """
    lengths = [len(piece) for piece in pieces]
    return EncodedDocuments(
        token_ids=np.concatenate(pieces) if pieces else np.zeros(0, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        characters=np.asarray(characters, dtype=np.int64),
        parts=joined_parts(lengths, characters, parts) if any(each is not None for each in parts) else None,
        rejected=rejected,
    )


def selected(encoded: EncodedDocuments, indices: Sequence[int]) -> EncodedDocuments:
    """Return some of the documents, in the order of their indices, worse texts with them."""
    return of_documents(
        [np.asarray(encoded[index]) for index in indices],
        [int(encoded.characters[index]) for index in indices],
        [None if encoded.parts is None else encoded.parts.of_document(index) for index in indices],
        None if encoded.rejected is None else selected(encoded.rejected, indices),
    )


def joined_parts(
    lengths: Sequence[int], characters: Sequence[int], parts: Sequence[DocumentParts | None]
) -> EncodedParts:
    """Return the parts of documents; one without parts has a single one, which is learned.

    Args:
        lengths: in tokens.
        characters: of each text that are learned.
        parts: of each, or None.
    """
    every = zip(lengths, characters, parts, strict=True)
    return EncodedParts.joined(
        [DocumentParts.whole(size, count) if each is None else each for size, count, each in every]
    )


WithParts: TypeAlias = tuple[NDArray[np.int32], DocumentParts | None]
"""A document's ids and its parts; None for one that is learned as a whole."""


def rejected_with_parts(
    documents: Sequence[Document], tokenizer: Tokenizer, chat: ChatTemplate | None = None
) -> list[WithParts]:
    """Return the ids and parts of each document's worse text; no ids for one that has none."""
    worse = [
        Document(each.rejected_text, each.id, {}, each.rejected, conversation=each.rejected_conversation)
        for each in documents
        if each.rejected
    ]
    found = iter(encoded_with_parts(worse, tokenizer, chat))
    return [next(found) if document.rejected else (np.zeros(0, np.int32), None) for document in documents]


def rejected_characters(document: Document) -> int:
    """Return how many Unicode code points of a document's worse text are learned."""
    return sum(len(part.text) for part in document.rejected if part.weight > 0)


def encoded_with_parts(
    documents: Sequence[Document], tokenizer: Tokenizer, chat: ChatTemplate | None = None
) -> list[WithParts]:
    """Return each document's ids as `ids_of` gives them, and its parts; None for one without."""
    plain = iter(ids_of([document.text for document in documents if not document.parts], tokenizer))
    return [encoded(document, tokenizer, chat) if document.parts else (next(plain), None) for document in documents]


def ids_of(texts: Sequence[str], tokenizer: Tokenizer) -> list[NDArray[np.int32]]:
    """Return each text's ids between start token (if the tokenizer has one) and end token, int32 `(tokens,)`."""
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    end = [tokenizer.end_token_id]
    return [np.asarray(start + ids + end, dtype=np.int32) for ids in tokenizer.encode_batch(texts)]
