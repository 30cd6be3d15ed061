"""Replaces an artefact in one step: whatever ends the process, either the whole old one or the whole new one is there.

What is written is staged in a hidden folder beside its place, `.name.….partial`, under the lock of its place. One file
or directory then takes its place by one rename, or by exchanging the two where a directory is replaced. What consists
of several files, or can't be exchanged, is moved in two steps: the staged folder is renamed to `.name.journal`, from
which moment on the new artefact counts, and then its files are moved. Whoever reads or writes there next finishes what
a kill left of that (`recover`), and whoever writes removes what else was left.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kerasgen.files import locking, presence
from kerasgen.files.atomic import sync, sync_directory, write

_REMOVED_FILE = ".kerasgen-removed.json"  # in a journal: names of the old artefact's files that the new one lacks
# Names of files that are replaced together though they don't begin alike.
_TOGETHER = {
    "vocab.json": ("merges.txt", "tokenizer_config.json"),
    "tokenizer.json": ("tokenizer_config.json",),
    "tokenizer.model": ("tokenizer_config.json",),
}
_LEFT = re.compile(r"\.(partial|replaced)")
_LEFT_OF_ANY = re.compile(r"\..+\.[0-9a-f]{8}\.(partial|replaced)")
_EXCHANGE = 2  # Linux's RENAME_EXCHANGE
_CURRENT_DIRECTORY = -100  # Linux's AT_FDCWD


@contextmanager
def staged(target: Path, *, wait: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`, whose lock is held meanwhile; `place` moves what is put into it.

    What killed writers left of the same target, or in the same directory, is finished or removed before that; and the
    folder is removed at the end.

    Args:
        target: a file or directory, which may be there.
        wait: as in `locking.locked`.

    Raises:
        LockedError: another writer is at work there.
        OSError: it can't be written there.
    """
    with locking.locked(target, wait=wait):
        _finish_if_begun(target)
        sweep(target)
        sweep_directory(target.parent)
        stage = _beside(target, "partial")
        try:
            stage.mkdir()
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def place(stage: Path, target: Path, *, removed: Collection[str] = ()) -> None:
    """Move what was staged to its place, whole or not at all; see `staged`.

    Args:
        stage: the folder; what is in it goes beside `target` under the same names, and `target` itself is among it.
        target: what the lock is of.
        removed: names beside `target` of what is there and no part of the new artefact.

    Raises:
        OSError: something can't be moved; all is as before.
    """
    sync(stage)
    names = sorted(_names(stage), key=lambda name: name == target.name)
    gone = [name for name in removed if name not in names and os.path.lexists(target.with_name(name))]
    if names == [target.name] and not gone and _placed_at_once(stage / target.name, target):
        sync_directory(target.parent)
        return
    write(stage / _REMOVED_FILE, json.dumps(gone, allow_nan=False))
    sync_directory(stage)
    journal, aside = _journal(target), _beside(target, "replaced")
    aside.mkdir()
    try:
        stage.rename(journal)
        try:
            sync_directory(target.parent)
            _move(journal, target, aside, back=True)
        except BaseException:
            journal.rename(stage)
            raise
    except BaseException:
        aside.rmdir()
        raise
    shutil.rmtree(journal, ignore_errors=True)
    sync_directory(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def replace(path: Path, data: bytes | str) -> None:
    """Write a file as `atomic.write` does, while no other process or thread writes it.

    What killed writers left in its directory is finished or removed before that.

    Args:
        path: the path of the file; its directory is made.
        data: all of it; text becomes UTF-8.

    Raises:
        OSError: it can't be written.
    """
    with locking.locked(path, wait=True):
        sweep(path)
        sweep_directory(path.parent)
        write(path, data)


def recover(target: Path) -> None:
    """Finish what a writer that was killed had begun to move to `target`; without a journal nothing is done.

    Raises:
        OSError: it can't be finished, such as in a directory that can't be written to.
    """
    if presence.is_dir(_journal(target)) and not _journal(target).is_symlink():
        with locking.locked(target, wait=True):
            _finish_if_begun(target)


def remove(path: Path) -> None:
    """Remove a file or directory so that no part of it is ever seen without the rest."""
    if not os.path.lexists(path):
        return
    aside = _beside(path, "replaced")
    path.rename(aside)
    _remove(aside)


def sweep(target: Path) -> None:
    """Remove what killed writers of `target` left. The lock of `target` is held."""
    beginning = f".{target.name}."
    for name in _names(target.parent):
        if name.startswith(beginning) and _LEFT.fullmatch(name[len(beginning) + 8 :]):
            with suppress(OSError):
                _remove(target.with_name(name))


def sweep_directory(directory: Path) -> None:
    """Finish or remove what killed writers left in a directory, whatever they wrote: their locks are free."""
    for name in _names(directory):
        if not (name.startswith(".") and name.endswith(".lock")):
            continue
        place = directory / name
        if locking.Holder.parse(_beginning(place)) is None:
            continue  # no lock of ours
        lock = locking.try_lock(place)
        if lock is None:
            continue
        try:
            with suppress(OSError):
                _finish_if_begun(locking.target_of(place))
                sweep(locking.target_of(place))
        finally:
            lock.release()


def sweep_own(directory: Path) -> None:
    """Remove what killed writers left in a directory that nobody else writes to now, whatever they wrote."""
    for name in _names(directory):
        if _LEFT_OF_ANY.fullmatch(name):
            with suppress(OSError):
                _remove(directory / name)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError:
        return []


def _beginning(place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.{ending}")


def _journal(target: Path) -> Path:
    return target.with_name(f".{target.name}.journal")


def _placed_at_once(new: Path, target: Path) -> bool:
    """Move one file or directory to its place by one act of the file system; say whether there was one."""
    if not os.path.lexists(target) or (not new.is_dir() and not (target.is_dir() and not target.is_symlink())):
        new.replace(target)
        return True
    if new.is_dir() and target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
        with suppress(OSError):  # Windows can't
            new.rename(target)
            return True
    return _exchange(new, target)


def _exchange(path: Path, other: Path) -> bool:
    rename = _renameat2()
    if rename is None:
        return False
    sys.audit("os.rename", os.fspath(path), os.fspath(other), -1, -1)  # as Python's own renames are told
    here = _CURRENT_DIRECTORY
    if rename(here, os.fsencode(path), here, os.fsencode(other), _EXCHANGE) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):  # an old kernel, or another file system
        return False
    raise OSError(error, os.strerror(error), str(path), None, str(other))


@functools.cache
def _renameat2() -> Any:
    if sys.platform != "linux":
        return None
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # musl before 1.2.6, glibc before 2.28
        return None
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    renameat2.restype = ctypes.c_int
    return renameat2


def _finish_if_begun(target: Path) -> None:
    """Finish a move that was begun. The lock of `target` is held."""
    journal = _journal(target)
    if not journal.is_dir() or journal.is_symlink():
        return
    aside = _beside(target, "replaced")
    aside.mkdir()
    _move(journal, target, aside, back=False)
    shutil.rmtree(journal)
    sync_directory(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _move(journal: Path, target: Path, aside: Path, *, back: bool) -> None:
    """Move a journal's files to their places, the artefact itself last, and move older files there aside.

    Args:
        journal: as `place` left it, or a kill within this.
        target: the artefact itself.
        aside: an empty folder.
        back: on any error, undo it.
    """
    try:
        gone = [str(name) for name in json.loads((journal / _REMOVED_FILE).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        gone = []
    names = [name for name in _names(journal) if name != _REMOVED_FILE]
    foreign = [name for name in (*names, *gone) if not _belongs(name, target)]
    if foreign:  # a journal from elsewhere must not name the user's own files
        raise OSError(errno.EINVAL, f"{journal} is none of ours: it names {foreign[0]!r}. Remove it", str(journal))
    begun: list[str] = []
    try:
        for name in [*sorted(names, key=lambda name: name == target.name), *gone]:
            begun.append(name)
            there = target.with_name(name)
            if os.path.lexists(there):
                there.replace(aside / name)
            if name not in gone:
                (journal / name).replace(there)
    except BaseException:
        for name in reversed(begun if back else []):
            there = target.with_name(name)
            if name not in gone and not os.path.lexists(journal / name):
                there.replace(journal / name)
            if os.path.lexists(aside / name):
                (aside / name).replace(there)
        raise


def _belongs(name: str, target: Path) -> bool:
    is_plain = "/" not in name and "\\" not in name
    beside = name.startswith(f"{target.name}.") or name in _TOGETHER.get(target.name, ())
    return is_plain and (name == target.name or beside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
