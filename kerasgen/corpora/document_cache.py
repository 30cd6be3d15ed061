"""Caches the documents of corpora that are slow to read, and what reading them counted, for later runs.

A file is named by the corpus's own fingerprint, and holds the SHA-256 of what is in it; one that is damaged or can't be
written costs the time to read the corpus again, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from kerasgen import cache as caches
from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.files import staging

FORMAT: Final = 1
FOLDER: Final = "documents"
MOST_BYTES: Final = 256 << 20
"""Of all files together; the ones that were used longest ago are removed."""

_log = logging.getLogger(__name__)


@cache
def code_digest() -> str | None:
    """Return digits that change with the code of the corpora, or None where it isn't there to be read.

    So no document that an older version read is taken for what this one reads.
    """
    digest = hashlib.sha256()
    files = sorted(Path(__file__).parent.glob("*.py"))
    for file in files:
        digest.update(f"{file.name}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else None


def path_of(directory: Path, key: Any) -> Path:
    """Return the path of the file for documents.

    Args:
        directory: the cache.
        key: a JSON value that changes whenever the documents do.
    """
    digits = hashlib.sha256(json.dumps([FORMAT, key], allow_nan=False).encode()).hexdigest()
    return directory / FOLDER / f"{digits}.json"


def is_whole(path: Path) -> bool:
    """Return whether a file is there and holds what `write` wrote."""
    try:
        return _content(path.read_bytes()) is not None
    except OSError:
        return False


def _content(data: bytes) -> bytes | None:
    """Return the bytes behind a file's digest, or None where they are others than were written."""
    digest, _, content = data.partition(b"\n")
    return content if hashlib.sha256(content).hexdigest().encode() == digest else None


def read(path: Path) -> tuple[list[Document], CorpusTally] | None:
    """Return what `write` wrote, or None where nothing is or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    try:
        content = _content(data)
        if content is None:
            raise ValueError("its bytes are not what was written")
        held = json.loads(content.decode("utf-8", "surrogatepass"))
        documents = [Document(text, name, metadata) for text, name, metadata in held["documents"]]
        counts = held["tally"]
        tally = CorpusTally(
            counts["read"], counts["kept"], counts["characters"], Counter(counts["dropped"]), Counter(counts["changed"])
        )
    except (ValueError, KeyError, TypeError) as damage:
        _log.warning("%s is damaged, and the corpus is read again: %s", path, damage)
        return None
    with suppress(OSError):
        os.utime(path)
    return documents, tally


def write(path: Path, documents: Sequence[Document], tally: CorpusTally) -> None:
    """Write documents and the counts of their reading, whole or not at all, and keep the folder within its bound.

    Documents with parts, a rejected text or a conversation are not kept, nor is metadata that JSON would change.
    """
    if any(document.parts or document.rejected or document.conversation is not None for document in documents):
        return
    held = {
        "tally": tally.to_dict(),
        "documents": [[document.text, document.id, document.metadata] for document in documents],
    }
    try:
        text = json.dumps(held, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return
    if json.loads(text) != held:
        return
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > MOST_BYTES:
        return
    try:
        staging.replace(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        caches.remove_oldest(path.parent.glob("*.json"), MOST_BYTES)
    except OSError as cause:
        _log.warning("%s can't be written, so the corpus is read again next time: %s", path, cause)
