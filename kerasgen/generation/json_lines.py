"""Many prompts become a file of JSON lines, a chunk at a time, which a killed run goes on with where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from kerasgen.errors import GenerateArgumentError, GenerationError

FORMAT = 1


@dataclass(frozen=True)
class Chunk:
    """Prompts that are generated from together.

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
        path: of the file.
        prompts: drawn a chunk at a time; the same ones in the same order when a killed run goes on.
        run: generates: a chunk to a record for each of its prompts.
        settings: what JSON can hold, different for runs whose texts would differ.
        skip: told of each chunk that stands in the file already.
        chunk_size: prompts in a chunk, at least 1; what a kill loses at most, and what memory holds.
        overwrite: replace a file that is there already, or what another run left half done.
        progress: show a bar on standard error; None does where that is a terminal.

    Raises:
        GenerateArgumentError: something is in the way, or a killed run had other settings or prompts.
        GenerationError: the file can't be written.
    """
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise GenerateArgumentError(f"`chunk_size` must be a whole number of at least 1. Received: {chunk_size!r}.")
    if isinstance(prompts, str):
        raise GenerateArgumentError(f"`prompts` must be a list of strings, or yield them. Received: {prompts!r:.80}.")
    file = _PartialFile(Path(path), hashlib.sha256(json.dumps([FORMAT, settings]).encode()).hexdigest())
    begun = file.begin(overwrite=overwrite)
    from tqdm.auto import tqdm

    total = len(prompts) if isinstance(prompts, Sequence) else None
    disable = None if progress is None else not progress
    with tqdm(total=total, desc="generating", unit=" texts", disable=disable, leave=False) as bar:
        for chunk in _chunks(prompts, chunk_size, begun):
            if chunk.first < begun:
                file.pass_over(chunk)
                skip(chunk)
            else:
                file.check_passed()
                file.add(chunk, run(chunk))
            bar.update(len(chunk.prompts))
    file.check_passed()
    return file.finish()


def _chunks(prompts: Iterable[str], size: int, begun: int) -> Iterator[Chunk]:
    """The prompts in chunks, the first `begun` in chunks of their own."""
    first, drawn = 0, iter(prompts)
    while True:
        room = min(size, begun - first) if first < begun else size
        several = tuple(islice(drawn, room))
        if not several:
            return
        for place, prompt in enumerate(several, start=first):
            if not isinstance(prompt, str):
                raise GenerateArgumentError(f"A prompt must be a string. Received: {prompt!r:.80} as prompt {place}.")
        yield Chunk(first, several)
        first += len(several)


class _PartialFile:
    """A file that is being written.

    Args:
        path: its name once it is complete.
        digest: of the run's settings.
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

    def begin(self, *, overwrite: bool) -> int:
        """Return how many lines of a killed run stand already."""
        if self._path.exists() and not overwrite:
            raise GenerateArgumentError(f"{self._path} is there already. Choose another path, or pass overwrite=True.")
        size = 0
        try:
            state = json.loads(self._state.read_text(encoding="utf-8")) if self._partial.exists() else {}
            if state and state.get("settings") != self._digest:
                if not overwrite:
                    raise GenerateArgumentError(
                        f"{self._partial} is of a run with other settings, or another model. Repeat that call to "
                        "go on with it, choose another path, or pass overwrite=True to begin anew."
                    )
                state = {}
            if state:
                self._begun, size, self._begun_digest = state["lines"], state["bytes"], state["prompts"]
        except FileNotFoundError:
            pass  # killed before its first chunk
        except (OSError, ValueError, KeyError, AttributeError) as cause:
            if isinstance(cause, GenerateArgumentError):
                raise
            raise GenerateArgumentError(
                f"{self._state} can't be read: {cause}. Remove it and {self._partial.name} to begin anew."
            ) from cause
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
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

    def pass_over(self, chunk: Chunk) -> None:
        """Take note of prompts whose lines stand already."""
        self._note(chunk)

    def check_passed(self) -> None:
        """Raise unless the prompts passed over are those of the lines that stand."""
        if self._lines < self._begun or (self._lines == self._begun and self._said.hexdigest() != self._begun_digest):
            raise GenerateArgumentError(
                f"{self._partial} holds {self._begun} texts of other prompts than these. Give the same prompts to go "
                "on with it, choose another path, or remove it to begin anew."
            )

    def add(self, chunk: Chunk, records: Sequence[dict[str, Any]]) -> None:
        """Write a chunk's lines, and then that they are certain."""
        numbered = enumerate(zip(chunk.prompts, records, strict=True), start=chunk.first)
        lines = [_line({"index": place, "prompt": prompt} | record) for place, (prompt, record) in numbered]
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
            new = self._state.with_name(self._state.name + ".new")
            new.write_text(json.dumps(state) + "\n", encoding="utf-8")
            new.replace(self._state)
        except OSError as cause:
            raise GenerationError(f"{self._partial} can't be written: {cause}") from cause

    def finish(self) -> Path:
        """Give the file its name."""
        try:
            self._partial.replace(self._path)
            self._state.unlink(missing_ok=True)
        except OSError as cause:
            raise GenerationError(f"{self._path} can't be written: {cause}") from cause
        return self._path

    def _note(self, chunk: Chunk) -> None:
        for prompt in chunk.prompts:
            written = prompt.encode("utf-8", "surrogatepass")
            self._said.update(len(written).to_bytes(8, "big") + written)
        self._lines += len(chunk.prompts)


def _line(record: dict[str, Any]) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold in escapes alone
        return json.dumps(record).encode("ascii") + b"\n"
