"""Locks files and folders that are written: one writer at a time; a lock names its holder and ends with it.

The lock is the operating system's, on a small file beside what is written, so that a holder that was killed holds
nothing, whatever process has its number since. Where a file system has no such locks (some network mounts, Windows),
the file itself is the lock, and the process that it names decides whether it is still one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import LockedError

_log = logging.getLogger(__name__)

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system without locks answers."""
_SECONDS_BETWEEN: Final = 0.05  # between two attempts to take a held lock
_SECONDS_GRANTED: Final = 0.5  # grace for a caller who doesn't wait: a sweep holds a lock for a moment
_SECONDS_UNSAID: Final = 10.0  # after which a lock file without a readable holder counts as abandoned
_LONGEST_NAME: Final = 200  # bytes; file systems take 255


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Args:
        pid: number of the process.
        host: name of its machine.
        since: when it took the lock, in local time with its offset.
        started: what no other process of this number has: the machine's boot and the process's start, as Linux tells
            them; empty elsewhere.
    """

    pid: int
    host: str
    since: str
    started: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """Return this process, now."""
        return cls(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S%z"), _started(os.getpid()))

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """Parse a lock file's content; None if it names no holder."""
        try:
            fields = json.loads(content)
            holder = cls(fields["pid"], fields["host"], fields["since"], fields["started"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        texts = (holder.host, holder.since, holder.started)
        fits = type(holder.pid) is int and 0 < holder.pid < 1 << 31 and all(isinstance(text, str) for text in texts)
        return holder if fits else None

    def to_bytes(self) -> bytes:
        """Return the content of the lock's file."""
        return json.dumps(vars(self), allow_nan=False).encode()

    def is_gone(self) -> bool:
        """Say whether the process is known to have ended; one of another machine never is."""
        if self.host != socket.gethostname():
            return False
        if self.started:
            return self.started != _started(self.pid)
        if os.name == "nt":  # where asking for a process by signal 0 would end it
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def _started(pid: int) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The second field is the program's name in brackets, which may hold any character.
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{boot}:{int(after_name[19])}"
    except (OSError, ValueError, IndexError):
        return ""


def place_of(target: Path) -> Path:
    """Return where the lock of `target` lies: beside it, under a hidden name."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = uuid.uuid5(uuid.NAMESPACE_URL, name).hex
    return target.with_name(f".{name}.lock")


def target_of(place: Path) -> Path:
    """Return the path that the lock at `place` guards; the inverse of `place_of`, but for the longest names."""
    return place.with_name(place.name.removeprefix(".").removesuffix(".lock"))


@contextmanager
def locked(
    target: Path, *, place: Path | None = None, wait: bool = False, advice: str = "or choose another path"
) -> Iterator[None]:
    """Be the only writer of `target`, among processes and threads, for as long as the block runs.

    Args:
        target: what is written; a file, a directory, or something that is not there yet.
        place: the lock's own file; None for the one beside `target`, whose directory is made.
        wait: wait while another writer holds the lock, instead of raising.
        advice: what a person can do beside waiting, for the error.

    Raises:
        LockedError: another writer holds it.
        OSError: the lock's file can't be made.
    """
    lock = _Lock(place_of(target) if place is None else place)
    try:
        lock.acquire(target, wait=wait, advice=advice)
        yield
    finally:
        lock.release()


def try_lock(place: Path) -> _Lock | None:
    """Take the lock whose file lies at `place`, if it does and nobody holds it; whoever gets it releases it."""
    lock = _Lock(place)
    if not place.is_file():
        return None
    try:
        return lock if lock.take() is None else None
    except OSError:
        return None


class _Lock:
    """The lock whose file lies at `place`."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._file: int | None = None
        self._content = b""
        self._pid = 0

    def acquire(self, target: Path, *, wait: bool, advice: str) -> None:
        """Take the lock, see `locked`."""
        self._place.parent.mkdir(parents=True, exist_ok=True)
        has_logged, began = False, time.monotonic()
        while (holder := self.take()) is not None:
            if not wait and time.monotonic() - began > _SECONDS_GRANTED:
                raise _locked_error(target, self._place, holder, advice)
            if wait and not has_logged:
                _log.info("%s is being written by %s; waiting for it.", target, _described(holder))
                has_logged = True
            time.sleep(_SECONDS_BETWEEN)

    def take(self) -> Holder | bytes | None:
        """Take the lock and return None; or return who holds it, or bytes if that can't be told."""
        self._pid, self._content = os.getpid(), Holder.this_process().to_bytes()
        try:
            import fcntl
        except ImportError:
            return self._take_by_name()
        while True:
            file = os.open(self._place, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    return _read_holder(file)
                finally:
                    os.close(file)
            except OSError as cause:
                os.close(file)
                if cause.errno not in _NO_LOCKS:
                    raise
                return self._take_by_name()
            if _is_at(file, self._place):
                break
            os.close(file)  # its holder removed it in between: the lock is on a deleted file
        self._file = file
        _held.add(self)
        with suppress(OSError):  # a full disk: the lock holds without its holder's name
            os.ftruncate(file, 0)
            os.pwrite(file, self._content, 0)
        return None

    def release(self) -> None:
        """Let others have the lock. In a forked child nothing happens: the lock is its parent's."""
        if self._pid != os.getpid():
            return
        if self._file is not None:
            import fcntl

            _held.discard(self)
            with suppress(OSError):
                # Removed while it is held: whoever opened it before sees that it is no longer there.
                self._place.unlink(missing_ok=True)
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)  # for children that hold the same open file as well
            os.close(self._file)
            self._file = None
        elif _read(self._by_name) == self._content:
            with suppress(OSError):
                self._by_name.unlink()

    def forget(self) -> None:
        """Close the file in a forked child, so that the lock ends with its holder."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    @property
    def _by_name(self) -> Path:
        return self._place.with_suffix(".holder")

    def _take_by_name(self) -> Holder | bytes | None:
        """Take the lock by creating its file, which only one process can; the file of a dead holder is moved away."""
        with suppress(OSError):
            self._place.unlink()  # an empty file, which this file system can't lock
        self._content += b" " + uuid.uuid4().hex.encode()  # tells threads of one process apart
        while True:
            try:
                file = os.open(self._by_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                content = _read(self._by_name)
                holder = Holder.parse(content.rpartition(b" ")[0])
                if holder is None and _age(self._by_name) < _SECONDS_UNSAID:
                    return content
                if holder is not None and not holder.is_gone():
                    return holder
                self._move_away(content)
                continue
            try:
                os.write(file, self._content)
            except OSError:  # a full disk: without its holder's name the file would soon count as abandoned
                self._by_name.unlink(missing_ok=True)
                raise
            finally:
                os.close(file)
            return None

    def _move_away(self, content: bytes) -> None:
        """Remove the file of a dead holder, unless another process was quicker and the file is a new holder's."""
        aside = self._by_name.with_name(f"{self._by_name.name}.{uuid.uuid4().hex[:8]}")
        with suppress(FileNotFoundError):
            self._by_name.rename(aside)
            if _read(aside) != content:
                with suppress(OSError):
                    os.link(aside, self._by_name)
            aside.unlink()


_held: set[_Lock] = set()


def _forget_all() -> None:
    for lock in _held:
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _is_at(file: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), place.stat())
    except FileNotFoundError:
        return False


def _read_holder(file: int) -> Holder | bytes:
    for _ in range(5):  # a holder writes its name only after it has the lock
        content = os.pread(file, 4096, 0)
        holder = Holder.parse(content)
        if holder is not None:
            return holder
        time.sleep(0.01)
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()[:4096]
    except OSError:
        return b""


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _described(holder: Holder | bytes) -> str:
    if isinstance(holder, bytes):
        return "another process"
    of_own = " (this one)" if holder.pid == os.getpid() and holder.host == socket.gethostname() else ""
    return f"process {holder.pid}{of_own} on {holder.host!r}, since {holder.since}"


def _locked_error(target: Path, place: Path, holder: Holder | bytes, advice: str) -> LockedError:
    attributes: dict[str, Any] = {}
    if isinstance(holder, Holder):
        attributes = {"pid": holder.pid, "host": holder.host, "since": holder.since}
    how = "" if sys.platform != "win32" else f" If that process has ended, remove {place.with_suffix('.holder')}."
    elsewhere = isinstance(holder, Holder) and holder.host != socket.gethostname()
    if elsewhere and not how:
        how = f" If that process has ended, remove {place} and {place.with_suffix('.holder').name}."
    return LockedError(
        f"{target} is being written by {_described(holder)}. Wait until it is finished, {advice}.{how}",
        path=target,
        **attributes,
    )
