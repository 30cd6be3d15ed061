"""Writes a file of JSON lines, a chunk of prompts at a time; a killed run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from kerasgen.errors import GenerateArgumentError, GenerationError
from kerasgen.files import atomic, locking, staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.terminal import size_for_bars

FORMAT = 1


@dataclass(frozen=True)
class Chunk:
    """Prompts that are read, decoded and written together.

    Args:
        first: the place of the first one among all prompts.
        prompts: the prompts.
    """

    first: int
    prompts: tuple[str, ...]


def write_lines(
    path: str | os.PathLike[str],
    prompts: Iterable[str],
    run: Callable[[Chunk], Sequence[dict[str, Any]]],
    *,
    settings: Any,
    skip: Callable[[Chunk], object] = lambda chunk: None,
    chunk_size: int = 1024,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write one line for each prompt, in order, and return the file's path.

    While the run goes on, the lines stand in `<path>.partial`, and `<path>.partial.json` says how many are certain. The
    file gets its name when it is complete. The same call after a kill goes on after the last complete chunk.

    Args:
        path: the path of the file.
        prompts: drawn a chunk at a time; the same ones in the same order when a killed run goes on.
        run: generates: a chunk to a record for each of its prompts.
        settings: what JSON can hold, different for runs whose texts would differ.
        skip: told of each chunk that stands in the file already.
        chunk_size: prompts in a chunk, at least 1; what a kill loses at most, and what memory holds.
        overwrite: begin anew, whatever another run left half done, and replace a file that is there already.
        progress: show a bar on standard error; None does where that is a terminal.

    Raises:
        LockedError: another process or thread is writing the same file.
        GenerateArgumentError: something is in the way, or a killed run had other settings or prompts.
        GenerationError: the file can't be written.
    """
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise GenerateArgumentError(f"`chunk_size` must be a whole number of at least 1. Received: {chunk_size!r}.")
    if isinstance(prompts, str):
        raise GenerateArgumentError(f"`prompts` must be a list of strings, or yield them. Received: {prompts!r:.80}.")
    place = path_argument(path, GenerateArgumentError)
    digest = hashlib.sha256(json.dumps([FORMAT, settings], allow_nan=False).encode()).hexdigest()
    file = _PartialFile(place, digest)
    with _alone(place):
        _write(file, prompts, run, skip, chunk_size, overwrite, progress)
    file.forget()  # the last step: after a kill just before it, the same call returns the path
    return place


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only one to write a file, and remove what killed writers left of others beside it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locking.locked(path))
        except OSError as cause:
            raise GenerationError(f"{path} can't be written: {cause}") from cause
        staging.sweep(path.with_name(f"{path.name}.partial.json"))
        staging.sweep_directory(path.parent)
        yield


def _write(
    file: _PartialFile,
    prompts: Iterable[str],
    run: Callable[[Chunk], Sequence[dict[str, Any]]],
    skip: Callable[[Chunk], object],
    chunk_size: int,
    overwrite: bool,
    progress: bool | None,
) -> None:
    begun = file.begin(overwrite=overwrite)
    from tqdm.auto import tqdm

    total = len(prompts) if isinstance(prompts, Sequence) else None
    disable = None if progress is None else not progress
    with tqdm(total=total, desc="generating", unit=" texts", disable=disable, leave=False, **size_for_bars()) as bar:
        for chunk in _chunks(prompts, chunk_size, begun):
            if chunk.first < begun:
                file.pass_over(chunk)
                skip(chunk)
            else:
                file.check_passed(more=True)
                file.add(chunk, run(chunk))
            bar.update(len(chunk.prompts))
    file.check_passed()
    file.finish()


def _chunks(prompts: Iterable[str], size: int, begun: int) -> Iterator[Chunk]:
    """Yield the prompts in chunks, the first `begun` in chunks of their own."""
    first, drawn = 0, iter(prompts)
    while True:
        remaining = min(size, begun - first) if first < begun else size
        chunk = tuple(islice(drawn, remaining))
        if not chunk:
            return
        for place, prompt in enumerate(chunk, start=first):
            if not isinstance(prompt, str):
                raise GenerateArgumentError(f"A prompt must be a string. Received: {prompt!r:.80} as prompt {place}.")
        yield Chunk(first, chunk)
        first += len(chunk)


class _PartialFile:
    """A file that is being written.

    Args:
        path: its name once it is complete.
        digest: the digest of the run's settings.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._state = path.with_name(path.name + ".partial.json")
        self._digest = digest
        self._said = hashlib.sha256()
        self._lines = 0
        self._begun = 0
        self._begun_digest = self._said.hexdigest()
        self._named = False  # whether the lines stand under the file's own name

    def begin(self, *, overwrite: bool) -> int:
        """Return how many lines of a killed run stand already."""
        if self._path.is_dir():
            raise GenerateArgumentError(f"{self._path} is a directory. Choose another path.")
        if overwrite:
            self._begin_anew()
        self._named = self._path.exists() and not overwrite
        size = 0
        try:
            state = self._read_state()
            if state and state["settings"] != self._digest:
                if self._named:
                    raise self._in_the_way()
                raise GenerateArgumentError(
                    f"{self._partial} is of a run with other settings, or another model. Repeat that call to "
                    "go on with it, choose another path, or pass overwrite=True to begin anew."
                )
            if state:
                self._begun, size, self._begun_digest = state["lines"], state["bytes"], state["prompts"]
        except (OSError, ValueError, KeyError, TypeError) as cause:
            if isinstance(cause, GenerateArgumentError):
                raise
            raise GenerateArgumentError(
                f"{self._state} can't be read: {cause}. Remove it and {self._partial.name} to begin anew."
            ) from cause
        if self._named:
            # The run that wrote it was killed between its last two steps, and this run may be the same one.
            if not state or self._path.stat().st_size != size:
                raise self._in_the_way()
            return self._begun
        try:
            if not state:
                self._state.unlink(missing_ok=True)  # of a file that was finished and is gone
            with self._partial.open("ab") as partial:
                if partial.tell() < size:
                    raise GenerateArgumentError(
                        f"{self._partial} is shorter than its run left it ({partial.tell()} bytes of {size}). Remove "
                        "it to begin anew."
                    )
                partial.truncate(size)  # what a kill left of a chunk
        except OSError as cause:
            raise GenerationError(f"{self._partial} can't be written: {cause}") from cause
        return self._begun

    def _begin_anew(self) -> None:
        """Remove what another run left half done; the file that it was to replace stays."""
        try:
            self._state.unlink(missing_ok=True)  # first, because lines without a state don't count
            self._partial.unlink(missing_ok=True)
        except OSError as cause:
            raise GenerationError(f"{self._partial} can't be removed: {cause}") from cause

    def _read_state(self) -> dict[str, Any]:
        """Return the recorded state of the lines that stand; empty without lines."""
        if self._named == self._partial.exists():  # no lines; or lines that are to replace another file
            return {}
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}  # killed before its first chunk, or finished
        if not isinstance(state, dict):
            raise TypeError("it holds no JSON object")
        lines, size, prompts = state["lines"], state["bytes"], state["prompts"]
        if not (type(lines) is type(size) is int and isinstance(prompts, str) and lines >= 0 and size >= 0):
            raise TypeError("it holds other values than were written")
        return state

    def _in_the_way(self) -> GenerateArgumentError:
        return GenerateArgumentError(f"{self._path} is there already. Choose another path, or pass overwrite=True.")

    def pass_over(self, chunk: Chunk) -> None:
        """Take note of prompts whose lines stand already."""
        self._note(chunk)

    def check_passed(self, *, more: bool = False) -> None:
        """Raise unless the prompts passed over are those of the lines that stand.

        Args:
            more: there are prompts after those.
        """
        if more and self._named:
            raise self._in_the_way()
        if self._lines < self._begun or (self._lines == self._begun and self._said.hexdigest() != self._begun_digest):
            if self._named:
                raise self._in_the_way()
            raise GenerateArgumentError(
                f"{self._partial} holds {self._begun} texts of other prompts than these. Give the same prompts to go "
                "on with it, choose another path, or remove it to begin anew."
            )

    def add(self, chunk: Chunk, records: Sequence[dict[str, Any]]) -> None:
        """Write a chunk's lines, and then that they are certain."""
        numbered = enumerate(zip(chunk.prompts, records, strict=True), start=chunk.first)
        lines = [atomic.json_line({"index": place, "prompt": prompt} | record) for place, (prompt, record) in numbered]
        self._note(chunk)
        try:
            with self._partial.open("ab") as partial:
                partial.write(b"".join(lines))
                partial.flush()
                os.fsync(partial.fileno())
                size = partial.tell()
            state = {
                "settings": self._digest,
                "lines": self._lines,
                "bytes": size,
                "prompts": self._said.hexdigest(),
            }
            atomic.write(self._state, json.dumps(state, allow_nan=False) + "\n")
        except OSError as cause:
            raise GenerationError(f"{self._partial} can't be written: {cause}") from cause

    def finish(self) -> None:
        """Give the file its name."""
        if self._named:
            return
        try:
            self._partial.replace(self._path)
            atomic.sync_directory(self._path.parent)
        except OSError as cause:
            raise GenerationError(f"{self._path} can't be written: {cause}") from cause

    def forget(self) -> None:
        """Remove what was certain of the lines, which now stand under the file's name; another run's stays."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["settings"] == self._digest and not self._partial.exists():
                self._state.unlink()
        except (OSError, ValueError, KeyError, TypeError):  # it is gone, or of others
            return

    def _note(self, chunk: Chunk) -> None:
        for prompt in chunk.prompts:
            written = prompt.encode("utf-8", "surrogatepass")
            self._said.update(len(written).to_bytes(8, "big") + written)
        self._lines += len(chunk.prompts)
