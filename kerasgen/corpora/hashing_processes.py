"""Takes the texts of a large corpus apart on all cores: in processes beside this one, and in it while they are busy.

    python -m kerasgen.corpora.hashing_processes

is such a process. It reads portions of texts from its standard input and writes their hashes to its standard output.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import kerasgen
from kerasgen import quiet
from kerasgen.corpora import text_lines
from kerasgen.corpora.text_lines import Hashes

MOST: Final = 7
"""Processes beside this one, at most: it reads the corpus, which keeps no more of them busy."""
_AHEAD = 2  # portions that wait for a process; with more waiting, this process takes one itself
_LENGTH_BYTES = 8


class HashingProcesses:
    """Processes that hash texts, as many as there are other cores.

    One that can't be started, or ends, costs time and nothing else: its portions are hashed here.

    Args:
        take: called with each portion's hashes, in the order of the portions, in this thread.
    """

    def __init__(self, take: Callable[[Hashes], None]) -> None:
        self._take = take
        started = [_started() for _ in range(min(MOST, _cores() - 1))]
        self._processes = [_Process(child) for child in started if child is not None]
        self._waiting: deque[Future[Hashes] | Hashes] = deque()

    def add(self, texts: Sequence[str], first: int) -> None:
        """Hash a portion of texts, now or beside; see `text_lines.hashed`."""
        least = min(self._processes, key=_Process.unfinished, default=None)
        if least is not None and least.unfinished() < _AHEAD:
            self._waiting.append(least.begin(texts, first))
        else:
            self._waiting.append(text_lines.hashed(texts, first))
        while self._waiting and (isinstance(self._waiting[0], Hashes) or self._waiting[0].done()):
            self._take_first()

    def _take_first(self) -> None:
        each = self._waiting.popleft()
        self._take(each if isinstance(each, Hashes) else each.result())

    def finish(self) -> None:
        """Wait for what is being hashed, and end the processes."""
        try:
            while self._waiting:
                self._take_first()
        finally:
            self.close()

    def close(self) -> None:
        """End the processes."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.close()


class _Process:
    """A process, and a thread that waits for its answers."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kerasgen-hashes")
        self._begun: list[Future[Hashes]] = []

    def unfinished(self) -> int:
        """Return how many portions wait for it, the one that it hashes with them."""
        self._begun = [each for each in self._begun if not each.done()]
        return len(self._begun)

    def begin(self, texts: Sequence[str], first: int) -> Future[Hashes]:
        """Let it hash a portion after those before."""
        self._begun.append(self._thread.submit(_ask, self._child, texts, first))
        return self._begun[-1]

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        for pipe in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._child.wait()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _started() -> subprocess.Popen[bytes] | None:
    search = os.pathsep.join(filter(None, [str(Path(kerasgen.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    if not sys.executable:
        return None
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "kerasgen.corpora.hashing_processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet.CHILD | {"PYTHONPATH": search},
        )
    except OSError:
        return None


def _ask(process: subprocess.Popen[bytes], texts: Sequence[str], first: int) -> Hashes:
    """Return the hashes that a process answers with, or compute them here if it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        _write(process.stdin, marshal.dumps((first, list(texts))))
        answer = _read(process.stdout)
    except (OSError, ValueError):
        answer = None
    if answer is None:
        return text_lines.hashed(texts, first)
    held = Hashes(array("q"), array("i"), array("q"), array("i"))
    for column, numbers in zip(held, marshal.loads(answer), strict=True):
        column.frombytes(numbers)
    return held


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(len(content).to_bytes(_LENGTH_BYTES, "little"))
    stream.write(content)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """Return what was written by `_write`, or None at the end."""
    head = stream.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(head, "little")
    content = stream.read(size)
    return content if len(content) == size else None


def _portions(stream: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    while (content := _read(stream)) is not None:
        yield marshal.loads(content)


def main() -> None:
    """Answer until standard input ends."""
    for first, texts in _portions(sys.stdin.buffer):
        found = text_lines.hashed(texts, first)
        _write(sys.stdout.buffer, marshal.dumps(tuple(column.tobytes() for column in found)))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        main()
