"""Finds the files that a path means: one file, those of a folder, or the matches of a glob."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kerasgen import limits, locations
from kerasgen.corpora import decompression
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError
from kerasgen.files import presence

COMPRESSIONS = tuple(decompression.COMPRESSIONS)


@dataclass(frozen=True)
class File:
    """One file of a corpus.

    Args:
        path: where it is.
        name: its path below the folder that was asked for, with forward slashes; the same on every machine.
    """

    path: Path
    name: str


def find_files(path: str, suffixes: tuple[str, ...]) -> list[File]:
    """Return the files that `path` means, in the order of their names.

    Args:
        path: a file; a folder, of which every file with one of the suffixes counts, in folders below it too, hidden
            ones (`.git`) left out; or a glob, whose matches count whatever their suffix. `~` is the home directory.
            Links are followed, and a file or folder that is reached in several ways is read once.
        suffixes: such as `(".txt",)`; a compression's suffix may follow.

    Raises:
        CorpusFormatError: there are more files, or deeper folders, than `kerasgen.limits` allow.
        CorpusUnavailableError: there is no such file, none in the folder, or it is no regular file.
    """
    root = Path(path).expanduser()
    if presence.is_dir(root):
        files = [file for file in _walk(root, root, ("**", "*")) if has_suffix(file.path, suffixes)]
        if not files:
            raise CorpusUnavailableError(
                f"The folder {path!r} holds no file that ends in {' or '.join(suffixes)} (or that and "
                f"{', '.join(COMPRESSIONS)}). For files of another name write a glob such as "
                f"'{root.as_posix()}/**/*.log'.",
                path=root,
            )
    elif presence.exists(root):
        files = [File(root, root.name)]
    elif glob.has_magic(str(root)):
        base = _fixed_part(root)
        files = list(_walk(base, base, root.parts[len(base.parts) :])) if base.is_dir() else []
        if not files:
            raise CorpusUnavailableError(
                f"No file matches {path!r}. The current folder is {str(Path.cwd())!r}.", path=root
            )
    else:
        raise CorpusUnavailableError(
            f"There is no file or folder {path!r}.{locations.hint(root)} The current folder is {str(Path.cwd())!r}.",
            path=root,
        )
    for file in files:
        check_regular(file.path)
    return _each_once(files)


def files_below(folder: Path, suffix: str) -> list[File]:
    """Return the files in and below a folder whose names end in a suffix, each once; links are followed.

    Args:
        folder: the folder.
        suffix: such as `".json"`.

    Raises:
        CorpusFormatError: there are more files, or deeper folders, than `kerasgen.limits` allow.
        CorpusUnavailableError: a folder can't be read.
    """
    return _each_once(file for file in _walk(folder, folder, ("**", "*")) if file.name.endswith(suffix))


def _each_once(files: Iterable[File]) -> list[File]:
    """Return each file once, in the order of their names; a file's own name goes before those of links to it."""
    own: dict[Path, File] = {}
    for file in sorted(files, key=lambda file: file.name):
        real = file.path.resolve()
        if real not in own or (file.path.absolute() == real != own[real].path.absolute()):
            own[real] = file
    return sorted(own.values(), key=lambda file: file.name)


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file's name ends in one of the suffixes, a compression's suffix left aside."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name.endswith(suffixes)


def check_regular(path: Path) -> None:
    """Check that a path names a regular file.

    Raises:
        CorpusUnavailableError: it does not, or can't be looked at.
    """
    try:
        kind = limits.kind_of_irregular(path)
    except OSError as cause:
        raise CorpusUnavailableError(f"{str(path)!r} can't be read: {cause.strerror or cause}.", path=path) from cause
    if kind is not None:
        raise CorpusUnavailableError(
            f"{str(path)!r} is {kind}, and a corpus is read from files: it is read more than once, and must have an "
            "end. Save what comes from there to a file, and pass that.",
            path=path,
        )


def _walk(base: Path, root: Path, pattern: tuple[str, ...]) -> Iterator[File]:
    """Yield the files below a folder whose path there matches a glob's parts, of which "**" is any number of folders.

    Links are followed, and no folder is looked into twice for the same rest of the pattern: links that lead in a
    circle, or in two ways to one folder, end.
    """
    allowed = limits.Limits.current()
    seen: set[tuple[int, int, int]] = set()
    names: set[str] = set()
    # A folder, the pattern's part that is next, its depth. Links wait at the left until there is nothing else: a folder
    # that lies here itself keeps its own name.
    waiting: deque[tuple[Path, int, int]] = deque([(root, 0, 0)])
    while waiting:
        folder, part, depth = waiting.pop()
        if depth > allowed.depth:
            raise _beyond(base, f"folders {depth} deep", "depth", allowed.depth)
        try:
            status = folder.stat()
            if (key := (status.st_dev, status.st_ino, part)) in seen:
                continue
            seen.add(key)
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
            for entry in entries:
                inside, is_folder = Path(entry.path), _is_folder(entry)
                for next_part in _matching(entry.name, pattern, part):
                    if next_part == len(pattern):
                        if not is_folder and (name := inside.relative_to(base).as_posix()) not in names:
                            names.add(name)
                            yield File(inside, name)
                    elif is_folder:
                        add = waiting.appendleft if entry.is_symlink() else waiting.append
                        add((inside, next_part, depth + 1))
        except OSError as cause:  # such as a folder that may not be opened: it is not passed over
            raise CorpusUnavailableError(
                f"The folder {str(folder)!r} can't be read: {cause.strerror or cause}.", path=folder
            ) from cause
        if len(names) > allowed.files:
            raise _beyond(base, f"more than {allowed.files:,} files", "files", allowed.files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a file that can't be read, if its name is one that is read
        return False


def _matching(name: str, pattern: tuple[str, ...], part: int) -> Iterator[int]:
    """Yield the pattern's next part after a name matched; a leading dot must be matched by a dot."""
    wanted = pattern[part]
    if wanted == "**":
        if not name.startswith("."):
            yield part
        if part + 1 < len(pattern):
            yield from _matching(name, pattern, part + 1)
        elif not name.startswith("."):
            yield len(pattern)
    elif fnmatch.fnmatchcase(name, wanted) and (not name.startswith(".") or wanted.startswith(".")):
        yield part + 1


def _beyond(folder: Path, excess: str, name: str, limit: int) -> CorpusFormatError:
    return CorpusFormatError(f"{str(folder)!r} holds {excess}. {limits.advice(name, limit)}", path=folder)


def _fixed_part(pattern: Path) -> Path:
    """Return the folders of a glob before its first pattern."""
    fixed: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)
