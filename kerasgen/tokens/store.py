"""Stores a corpus's token ids on disk: written once, whole or not at all, checked at each reading, memory-mapped.

A store is a directory under the cache, named by a digest of the texts, the tokenizer and the division into sides. Its
`store.json` comes last and holds the SHA-256 of every file beside it. The directory is filled under another name and
renamed; of two processes that want the same one, one writes it and the other waits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kerasgen import cache, limits
from kerasgen.chat.template import ChatTemplate
from kerasgen.corpora import splits
from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.errors import TokenStoreError
from kerasgen.files import staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.terminal import size_for_bars
from kerasgen.tokens import parts
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.chunks import TEXTS_AT_ONCE
from kerasgen.tokens.corpus_scan import Survey, Surveyed, TextDigest
from kerasgen.tokens.encoding import (
    EncodedDocuments,
    WithParts,
    digest_of_pairs,
    encoded_with_parts,
    joined_parts,
    rejected_characters,
    rejected_with_parts,
)
from kerasgen.tokens.parts import DocumentParts, EncodedParts, learned_characters

if TYPE_CHECKING:
    from io import BufferedWriter


MANIFEST_FILE: Final = "store.json"
FORMAT: Final = 1
SIDES: Final[tuple[splits.Side, ...]] = ("train", "held_out")
COLUMNS: Final = {"ids": "<i4", "offsets": "<i8", "characters": "<i8"}
"""The files of one side and what a number in them is."""
PART_COLUMNS: Final = {f"parts.{name}": dtype for name, dtype in parts.COLUMNS.items()}
"""The further files of a corpus whose documents have parts."""

# Characters encoded at once: a million become a hundred megabytes of the library's answers. With four times as many,
# the peak of a process that stored 60 MB of text was 440 MB instead of 160.
_CHARACTERS_AT_ONCE = 1_000_000
_BYTES_AT_ONCE = 1 << 22

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class StoredDocuments(EncodedDocuments):
    """Ids that lie in a file and are read as they are needed.

    Args:
        known_digest: what `digest` returns; the file was checked against it when it was opened.
        directory: of the store, in which what belongs to these ids may be kept.
    """

    known_digest: str = ""
    directory: Path | None = None

    def digest(self) -> str:
        """Return what `EncodedDocuments.digest` would, without reading the file once more."""
        return self.known_digest


@dataclass(frozen=True, eq=False)
class StoredCorpus:
    """Token ids of a corpus: the training and the held-out documents.

    Args:
        train: the documents to train on.
        held_out: the documents that are never trained on.
        tally: what reading the corpus kept and dropped.
        path: the store's directory; None for a corpus that is streamed.
        reused: whether the ids were there already.
    """

    train: EncodedDocuments
    held_out: EncodedDocuments
    tally: CorpusTally
    path: Path | None = None
    reused: bool = False


def cache_directory(directory: str | os.PathLike[str] | None = None) -> Path:
    """Return where stores are kept: the argument, else `KERASGEN_CACHE`, else the user's cache; with `tokens` added."""
    return cache.directory(directory) / "tokens"


def store(
    read: Callable[[CorpusTally], Iterable[Document]],
    tokenizer: Tokenizer,
    *,
    held_out: float | splits.Division,
    directory: str | os.PathLike[str],
    show: bool = False,
    survey: Survey | None = None,
    chat: ChatTemplate | None = None,
) -> StoredCorpus:
    """Return a corpus's ids, from the store if they are there, and else written there first.

    The texts are read each time, which is quick, and their digest decides: a corpus that changed in any way, under the
    same name, is another. Memory stays flat however large the corpus is: at most a thousand texts are held at once.

    Args:
        read: yields the documents, the same ones at each call, and fills the tally. Called twice if ids are written.
        tokenizer: the tokenizer whose ids they become; it encodes on all cores.
        held_out: the fraction of texts that is held out, as for `kerasgen.corpora.splits.side`, or the division that
            says it of each text.
        directory: where stores are kept; see `cache_directory`.
        show: show a progress bar.
        survey: of the same documents and division, if there is one; what it has read already is not read again for the
            digest.
        chat: writes conversations; see `kerasgen.tokens.parts.encoded`.

    Raises:
        ChatTemplateError: there are conversations, and no template, or it refuses one.
        TokenStoreError: the ids can't be written there (a full disk, no permission), or the texts were others when they
            were read the second time.
    """
    division = splits.division(held_out)
    found_texts = (survey or surveying(read, held_out=division, show=show)).found
    tally, texts = found_texts.tally, found_texts.digest
    key = [FORMAT, texts, tokenizer.digest(), division.key]
    key += [chat.digest()] if chat is not None and found_texts.has_conversations else []
    name = hashlib.sha256(json.dumps(key, allow_nan=False).encode()).hexdigest()
    target = path_argument(directory, name="directory") / name
    opened = _open_if_whole(target)
    if opened is not None:
        return StoredCorpus(*opened, tally=tally, path=target, reused=True)
    try:
        # Another process may be writing the same: its ids are these, and it is quicker to wait for them.
        with staging.staged(target, wait=True) as stage:
            opened = _open_if_whole(target)
            if opened is not None:
                return StoredCorpus(*opened, tally=tally, path=target, reused=True)
            new = stage / name
            new.mkdir()
            documents = _shown(read(CorpusTally()), "tokenising", show, total=tally.kept)
            written = _write(documents, tokenizer, division, new, texts=found_texts, chat=chat)
            if written != texts:
                raise TokenStoreError(
                    "The corpus gave other texts when it was read a second time, so its ids can't be stored. A corpus "
                    "must yield the same documents each time.",
                    path=target,
                )
            staging.place(stage, target)
    except OSError as cause:
        raise TokenStoreError(
            f"The corpus's token ids can't be written to {directory}: {cause}. Make room, or name another directory: "
            f"set {cache.VARIABLE}, or pass Pipeline(cache=…).",
            path=target,
        ) from cause
    return StoredCorpus(*_open(target), tally=tally, path=target, reused=False)


def surveying(
    read: Callable[[CorpusTally], Iterable[Document]],
    *,
    held_out: float | splits.Division,
    show: bool = False,
    noted: Callable[[Callable[[], dict[str, Any]]], dict[str, Any]] | None = None,
) -> Survey:
    """Return a survey of the documents, which shows a progress bar while it reads them if it is asked to.

    The arguments are those of `Survey`.
    """
    return Survey(read, held_out=held_out, shown=lambda documents: _shown(documents, "reading", show), noted=noted)


def _shown(documents: Iterable[Document], label: str, show: bool, total: int | None = None) -> Iterator[Document]:
    from tqdm.auto import tqdm

    disable = None if show else True
    return iter(
        tqdm(documents, desc=label, unit=" documents", total=total, leave=False, disable=disable, **size_for_bars())
    )


class _Column:
    """Numbers written one after another into a file, with their SHA-256."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._file: BufferedWriter = path.open("wb")

    def add(self, numbers: NDArray[Any]) -> None:
        data = numbers.tobytes()
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)

    def finish(self) -> dict[str, Any]:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"bytes": self.size, "sha256": self.sha256.hexdigest()}

    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()


class _Side:
    """The files of one side while they are written.

    Args:
        side: which one.
        directory: where they are written.
        with_parts: whether the documents' parts are written too.
    """

    def __init__(self, side: str, directory: Path, *, with_parts: bool) -> None:
        names = (*COLUMNS, *PART_COLUMNS) if with_parts else COLUMNS
        self.columns = {column: _Column(directory / f"{side}.{column}") for column in names}
        self._with_parts = with_parts
        for name in names:
            if name.endswith("offsets"):
                self.columns[name].add(np.zeros(1, "<i8"))
        self._end = self._parts_end = 0

    def add(
        self, token_ids: list[NDArray[np.int32]], characters: list[int], of_documents: list[DocumentParts | None]
    ) -> None:
        """Write some documents' ids, learned characters, and parts."""
        if not token_ids:
            return
        lengths = [len(ids) for ids in token_ids]
        offsets = self._end + np.cumsum(lengths)
        if self._with_parts:
            joined = joined_parts(lengths, characters, of_documents)
            further = {"offsets": joined.offsets[1:] + self._parts_end, "ends": joined.ends + self._end}
            for name, dtype in parts.COLUMNS.items():
                numbers = further.get(name, getattr(joined, name))
                self.columns[f"parts.{name}"].add(numbers.astype(dtype))
            self._parts_end += len(joined.ends)
        self.columns["ids"].add(np.concatenate(token_ids).astype("<i4"))
        self.columns["offsets"].add(offsets.astype("<i8"))
        self.columns["characters"].add(np.asarray(characters, "<i8"))
        self._end = int(offsets[-1])


def _write(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    division: splits.Division,
    directory: Path,
    *,
    texts: Surveyed,
    chat: ChatTemplate | None,
) -> str:
    """Write every file of a store and return the digest of the texts that went into it."""
    digest = TextDigest()
    sides: dict[str, _Side] = {side: _Side(side, directory, with_parts=texts.has_parts) for side in SIDES}
    if texts.has_pairs:
        sides |= {_worse(side): _Side(_worse(side), directory, with_parts=True) for side in SIDES}
    try:
        for portion, encoded in _encoded(documents, tokenizer, chat, with_pairs=texts.has_pairs):
            shares: dict[str, _Share] = {side: ([], [], []) for side in sides}
            for document, better, worse in zip(portion, *encoded, strict=True):
                digest.add(document)
                side = division.side(document.text)
                _add(shares[side], better, learned_characters(document))
                if worse is not None:
                    _add(shares[_worse(side)], worse, rejected_characters(document))
            for name, share in shares.items():
                sides[name].add(*share)
        columns = [column for files_of_side in sides.values() for column in files_of_side.columns.values()]
        files = {column.path.name: column.finish() for column in columns}
    finally:
        for files_of_side in sides.values():
            for column in files_of_side.columns.values():
                column.abandon()
    manifest: dict[str, Any] = {"format": FORMAT, "tokenizer": tokenizer.digest(), "texts": digest.hexdigest()}
    manifest["files"] = files
    manifest["sha256"] = _digest_of_manifest(manifest)
    with (directory / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _worse(side: str) -> str:
    """Return the name of the files with the worse texts of a side."""
    return f"{side}.rejected"


_Share: TypeAlias = tuple[list[NDArray[np.int32]], list[int], list[DocumentParts | None]]
_Sides: TypeAlias = tuple[list[WithParts], list[WithParts] | list[None]]


def _add(share: _Share, encoded: WithParts, learned: int) -> None:
    ids, characters, of_documents = share
    ids.append(encoded[0])
    characters.append(learned)
    of_documents.append(encoded[1])


def _encoded(
    documents: Iterable[Document], tokenizer: Tokenizer, chat: ChatTemplate | None, *, with_pairs: bool
) -> Iterator[tuple[list[Document], _Sides]]:
    """Yield portions of documents with the ids of both texts of each, None for the worse ones without pairs.

    The next portion is encoded while one is read and another is stored.
    """

    def both(portion: list[Document]) -> _Sides:
        worse = rejected_with_parts(portion, tokenizer, chat) if with_pairs else [None] * len(portion)
        return encoded_with_parts(portion, tokenizer, chat), worse

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kerasgen-tokens") as thread:
        before: tuple[list[Document], Future[_Sides]] | None = None
        for portion in _portions(documents):
            now = portion, thread.submit(both, portion)
            if before is not None:
                yield before[0], before[1].result()
            before = now
        if before is not None:
            yield before[0], before[1].result()


def _portions(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the documents in portions of at most a thousand and a few million characters."""
    portion: list[Document] = []
    characters = 0
    for document in documents:
        portion.append(document)
        characters += len(document.text) + len(document.rejected_text)
        if len(portion) == TEXTS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


def _open_if_whole(target: Path) -> tuple[StoredDocuments, StoredDocuments] | None:
    """Return the store's documents, or None if there is none or it is damaged."""
    if not target.exists():
        return None
    try:
        return _open(target)
    except (TokenStoreError, OSError) as damage:
        _log.warning("A damaged token store is written anew: %s", damage)
        return None


def _open(target: Path) -> tuple[StoredDocuments, StoredDocuments]:
    """Return the store's documents, after checking every byte.

    Raises:
        TokenStoreError: a file is not what was written.
    """
    try:
        manifest = limits.read_json(target / MANIFEST_FILE)
        if manifest["sha256"] != _digest_of_manifest(manifest):
            raise ValueError(f"{MANIFEST_FILE} is not what was written")
        train, held_out = (_open_both(side, target, manifest["files"]) for side in SIDES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise TokenStoreError(f"The token store {target} is damaged: {cause}.", path=target) from cause
    return train, held_out


def _open_both(side: str, directory: Path, files: Mapping[str, Any]) -> StoredDocuments:
    """Return the documents of a side, with their worse texts where there are some."""
    better = _open_side(side, directory, files)
    if f"{_worse(side)}.ids" not in files:
        return better
    worse = _open_side(_worse(side), directory, files)
    if len(worse) != len(better):
        raise ValueError(f"it has {len(better)} documents and {len(worse)} worse ones")
    if not len(worse.token_ids):
        return better
    return dataclasses.replace(better, rejected=worse, known_digest=digest_of_pairs(better.digest(), worse))


def _open_side(side: str, directory: Path, files: Mapping[str, Any]) -> StoredDocuments:
    arrays: dict[str, NDArray[Any]] = {}
    running = hashlib.sha256()
    has_parts = f"{side}.{next(iter(PART_COLUMNS))}" in files
    for column, dtype in (COLUMNS | (PART_COLUMNS if has_parts else {})).items():
        path = directory / f"{side}.{column}"
        expected = files[path.name]
        with path.open("rb") as file:
            digest, size = _sha256_of(file, running if column != "characters" else None)
        if size != expected["bytes"] or digest != expected["sha256"]:
            raise ValueError(f"{path.name} is not what was written")
        # A map of no bytes can't be made.
        arrays[column] = np.memmap(path, dtype, "r") if size else np.zeros(0, dtype)
    return StoredDocuments(
        token_ids=arrays["ids"],
        offsets=arrays["offsets"],
        characters=arrays["characters"],
        parts=EncodedParts(*(arrays[column] for column in PART_COLUMNS)) if has_parts else None,
        known_digest=running.hexdigest(),
        directory=directory,
    )


def _sha256_of(file: BinaryIO, running: Any) -> tuple[str, int]:
    """Return the SHA-256 and the length of a file; `running` is updated with its bytes too."""
    own = hashlib.sha256()
    size = 0
    while data := file.read(_BYTES_AT_ONCE):
        own.update(data)
        size += len(data)
        if running is not None:
            running.update(data)
    return own.hexdigest(), size


def _digest_of_manifest(manifest: Mapping[str, Any]) -> str:
    hashed = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True, allow_nan=False).encode()).hexdigest()
