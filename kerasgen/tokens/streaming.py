"""Encodes a corpus window by window, so that neither memory nor disk holds all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from kerasgen.chat.template import ChatTemplate
from kerasgen.corpora import splits
from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.corpora.windows import Window, draw
from kerasgen.errors import CheckpointError
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.corpus_scan import TextDigest
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents


@dataclass(frozen=True)
class Position:
    """Position of a window in a corpus that is read repeatedly.

    Args:
        passes: whole passes before it.
        documents: documents of its own pass before it, those of both sides.
        digest: of the texts of those documents.
        tally: what the first pass kept and dropped, where it is over; else None.
    """

    passes: int = 0
    documents: int = 0
    digest: str = ""
    tally: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class EncodedWindow:
    """The documents of a window as ids.

    Args:
        begin: where it begins.
        train: the documents to train on.
        held_out: the others.
    """

    begin: Position
    train: EncodedDocuments
    held_out: EncodedDocuments


class DocumentStream:
    """A corpus that is read and encoded window by window, from its beginning again where it ends.

    Args:
        read: yields the documents of both sides, the same ones at each call, and fills the tally.
        tokenizer: the tokenizer whose ids they become.
        division: says which side each text lands on.
        characters: of a window's texts, about.
        chat: writes conversations; see `kerasgen.tokens.parts.encoded`.
    """

    def __init__(
        self,
        read: Callable[[CorpusTally], Iterable[Document]],
        tokenizer: Tokenizer,
        *,
        division: splits.Division,
        characters: int,
        chat: ChatTemplate | None = None,
    ) -> None:
        self._read = read
        self._tokenizer = tokenizer
        self._division = division
        self._chat = chat
        self.characters = characters
        self.tally = CorpusTally()
        """What the first pass kept and dropped, as far as it was read."""

    @property
    def key(self) -> Any:
        """A JSON value that identifies how the corpus is cut into windows and encoded."""
        chat = None if self._chat is None else self._chat.digest()
        return [self.characters, self._division.key, self._tokenizer.digest(), chat]

    def windows(self, begin: Position | None = None) -> Iterator[EncodedWindow]:
        """Yield windows without end; those without a document to train on are left out.

        The documents before the first window are read, and not encoded.

        Args:
            begin: of the first window; None for the corpus's beginning.

        Raises:
            CheckpointError: the documents before it are no longer what they were.
        """
        begin = Position() if begin is None else begin
        passes, tally = begin.passes, begin.tally
        while True:
            counts, digest = CorpusTally(), TextDigest()
            documents = iter(self._read(counts))
            if not passes:
                self.tally = counts
            drawn = trained = 0
            if passes == begin.passes and begin.documents:
                for document in islice(documents, begin.documents):
                    digest.add(document)
                    drawn += 1
                trained = drawn
                if drawn < begin.documents or digest.hexdigest() != begin.digest:
                    raise CheckpointError(
                        f"The corpus gives other documents than when the run was interrupted: of the "
                        f"{begin.documents:,} before that, {drawn:,} are there, and their texts differ. A streamed "
                        "corpus must yield the same documents each time. Put the old one back, or start anew with "
                        "resume=False."
                    )
            while True:
                at = Position(passes, drawn, digest.hexdigest() if drawn else "", tally)
                window = draw(documents, self.characters, self._division, digest.add)
                if not len(window):
                    break
                drawn += len(window)
                trained += len(window.train)
                if window.train:
                    encoded = [self._encoded(at, window)]
                    del window  # neither its texts nor its ids are held here while they are trained on
                    yield encoded.pop()
            if not trained:
                return
            passes += 1
            tally = counts.to_dict() if tally is None else tally

    def _encoded(self, begin: Position, window: Window) -> EncodedWindow:
        return EncodedWindow(
            begin,
            encode_documents(window.train, self._tokenizer, self._chat),
            encode_documents(window.held_out, self._tokenizer, self._chat),
        )


@dataclass(frozen=True, eq=False)
class StreamedDocuments(EncodedDocuments):
    """The documents to train on of a corpus's first window, and a way to all others.

    Args:
        stream: the corpus.
        learns_all: whether every token of a document is learned, whatever its parts say.
    """

    stream: DocumentStream | None = None
    learns_all: bool = False

    def digest(self) -> str:
        """Return 64 hexadecimal digits that stand for the first window, and for how the corpus is cut into windows."""
        assert self.stream is not None
        described = json.dumps([super().digest(), self.stream.key], allow_nan=False)
        return hashlib.sha256(described.encode()).hexdigest()

    def learning_all(self) -> StreamedDocuments:
        """Return the same documents, of which every token is learned, without worse ones."""
        every = super().learning_all()
        return StreamedDocuments(every.token_ids, every.offsets, every.characters, stream=self.stream, learns_all=True)

    def windows(self, begin: Position | None = None) -> Iterator[EncodedWindow]:
        """Yield windows as `DocumentStream.windows` does, of which is learned what these documents say."""
        assert self.stream is not None
        return map(self._learned, self.stream.windows(begin))

    def _learned(self, window: EncodedWindow) -> EncodedWindow:
        return replace(window, train=window.train.learning_all()) if self.learns_all else window


def first_window(stream: DocumentStream) -> tuple[StreamedDocuments, EncodedDocuments]:
    """Return the documents to train on, and the held-out documents of the first window.

    Args:
        stream: the corpus. If it has no document to train on, both are empty.
    """
    window = next(stream.windows(), None)
    train = encode_documents([], stream._tokenizer) if window is None else window.train
    held_out = train if window is None else window.held_out
    return (
        StreamedDocuments(train.token_ids, train.offsets, train.characters, train.parts, train.rejected, stream),
        held_out,
    )
