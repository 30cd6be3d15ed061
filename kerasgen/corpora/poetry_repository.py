"""Reads the poem files of the chinese-poetry repository, a folder or an archive, in the order of their numbers."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kerasgen.corpora.archives import members, spooled
from kerasgen.corpora.file_kinds import kind_of
from kerasgen.corpora.streams import read_whole
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError

FOLDER = "全唐诗"
REPOSITORY = "https://github.com/chinese-poetry/chinese-poetry"
REVISION = "99ebbef7e1345c0985c44b9fd96a3f9e776f117b"
ARCHIVE_URL = f"{REPOSITORY}/archive/{REVISION}.tar.gz"
DYNASTIES = ("tang", "song")

_FILE = re.compile(r"poet\.(tang|song)\.(\d+)\.json")


class PoemFile(NamedTuple):
    """One file of poems as it stands in the repository.

    Args:
        dynasty: `"tang"` or `"song"`.
        place: where it lies, for messages.
        name: without folders.
        content: JSON in UTF-8, if all is well.
    """

    dynasty: str
    place: str
    name: str
    content: bytes

    def poems(self) -> list[Any]:
        """Return the poems as they stand in the file.

        Raises:
            CorpusFormatError: the file is not UTF-8, not JSON, or not a list.
        """
        poems = self.value()
        if isinstance(poems, list):
            return poems
        raise self._malformed(f"holds no list of poems but a {type(poems).__name__}") from TypeError(type(poems))

    def value(self) -> Any:
        """Parse the file's JSON and return its value.

        Raises:
            CorpusFormatError: the file is not UTF-8 or not JSON.
        """
        try:
            return json.loads(self.content.decode("utf-8").removeprefix("\ufeff"))
        except UnicodeDecodeError as cause:
            raise self._malformed(
                f"is not UTF-8: {cause.reason}", cause.start, self.content.count(b"\n", 0, cause.start) + 1
            ) from cause
        except json.JSONDecodeError as cause:
            byte = len(self.content) - len(cause.doc[cause.pos :].encode("utf-8"))
            raise self._malformed(f"is not JSON: {cause.msg}", byte, cause.lineno) from cause
        except (ValueError, RecursionError) as cause:  # a number too long, lists too deep
            raise self._malformed(f"can't be read: {cause}") from cause

    def _malformed(self, problem: str, byte: int = 0, line: int = 1) -> CorpusFormatError:
        kind = kind_of(self.content)
        what = "" if kind is None else f" (it is {kind})"
        return CorpusFormatError(
            f"{self.place} {problem}, at byte {byte} (line {line}){what}. Fetch it again, or use on_error='skip' to "
            "pass over it.",
            path=self.place,
            line=line,
            byte=byte,
        )


def poem_files(
    path: Path,
    dynasties: tuple[str, ...] = DYNASTIES,
    on_damage: Callable[[CorpusFormatError], None] | None = None,
    *,
    optional: bool = False,
) -> Iterator[PoemFile]:
    """Yield the poem files of a directory or archive, Tang before Song, each by its number.

    The folder `error` of the repository holds files that were rejected; it is never read.

    Args:
        path: a directory that is the folder 全唐诗 or holds it, or an archive of either.
        dynasties: `"tang"`, `"song"` or both.
        on_damage: called with the error if an archive is cut or damaged but some of its files came before that place;
            without it the error is raised.
        optional: yield nothing, instead of raising, where there are no files of any of the dynasties.

    Raises:
        CorpusFormatError: the archive is cut or damaged, or several folders hold poem files.
        CorpusUnavailableError: nothing is there, or no files of one of the dynasties.
    """
    if path.is_dir():
        folder = path / FOLDER if (path / FOLDER).is_dir() else path
        names = _names(folder, dynasties)
        if not names and not optional and len(deeper := list(path.glob(f"*/{FOLDER}"))) == 1:
            folder = deeper[0]  # an archive was unpacked into the directory, with its first folder
            names = _names(folder, dynasties)
        if optional and not names:
            return
        for dynasty, name in _ordered(names, dynasties, where=folder):
            yield PoemFile(dynasty, str(folder / name), name, read_whole(folder / name))
    elif path.is_file():
        yield from _archive_files(path, dynasties, on_damage, optional)
    else:
        raise CorpusUnavailableError(
            f"chinese_poetry: there is nothing at {path}. Pass as path= the repository's directory, its folder "
            f"{FOLDER}, or an archive of it; without a path the files are downloaded.",
            path=path,
        )


def _names(folder: Path, dynasties: tuple[str, ...]) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.is_file() and _is_wanted(entry.name, dynasties)]


def _archive_files(
    path: Path, dynasties: tuple[str, ...], on_damage: Callable[[CorpusFormatError], None] | None, optional: bool
) -> Iterator[PoemFile]:
    with spooled(path, lambda name: _is_wanted(name, dynasties), on_damage) as (names, read):
        if optional and not names:
            return
        for dynasty, name in _ordered(names, dynasties, where=path):
            yield PoemFile(dynasty, f"{path}:{name}", PurePosixPath(name).name, read(name))


def _is_wanted(name: str, dynasties: tuple[str, ...]) -> bool:
    place = PurePosixPath(name)
    match = _FILE.fullmatch(place.name)
    return match is not None and match[1] in dynasties and place.parent.name != "error"


def _ordered(names: list[str], dynasties: tuple[str, ...], *, where: Path) -> list[tuple[str, str]]:
    """Return dynasty and name of the wanted files, in order."""
    by_folder = Counter(str(PurePosixPath(name).parent) for name in names)
    if len(by_folder) > 1:
        named = [folder for folder in by_folder if PurePosixPath(folder).name == FOLDER]
        if len(named) != 1:
            raise CorpusFormatError(
                f"{where} has poem files in {len(by_folder)} folders ({', '.join(sorted(by_folder))}), and it can't be "
                f"told which are meant. Unpack it and pass the folder {FOLDER} as path=.",
                path=where,
            )
        names = [name for name in names if str(PurePosixPath(name).parent) == named[0]]
    keyed = []
    for name in names:
        _, dynasty, number, _ = PurePosixPath(name).name.split(".")
        keyed.append((DYNASTIES.index(dynasty), int(number), dynasty, name))
    present = {dynasty for *_, dynasty, _ in keyed}
    for dynasty in dynasties:
        if dynasty not in present:
            hint = "".join(f" It has those of {other}: pass dynasty={other!r} for them." for other in present)
            raise CorpusUnavailableError(
                f"chinese_poetry: {where} holds no file poet.{dynasty}.*.json, neither in a folder {FOLDER} nor at its "
                f"top.{hint}",
                path=where,
            )
    return [(dynasty, name) for _, _, dynasty, name in sorted(keyed)]


def verify_archive(path: str | Path) -> None:
    """Check that an archive holds the pinned revision.

    The digests of the 58 Tang files are known and compared. Those of the Song files are not: the digest of the whole
    archive, written down at its first download, holds them from then on.

    Raises:
        CorpusFormatError: the archive can't be read, or a Tang file is missing or another.
    """
    pins: dict[str, str] = json.loads(
        resources.files("kerasgen.corpora").joinpath("data/chinese_poetry_sha256.json").read_text(encoding="utf-8")
    )["sha256"]
    present: set[str] = set()
    for name, content in members(path, lambda name: _is_wanted(name, ("tang",))):
        file = PurePosixPath(name).name
        if hashlib.sha256(content).hexdigest() != pins.get(file):
            raise CorpusFormatError(
                f"{name} of the archive is not the file of revision {REVISION[:8]} of {REPOSITORY}. Fetch the archive "
                "of that revision, or pass another revision's as path=….",
                path=path,
            )
        present.add(file)
    if missing := sorted(pins.keys() - present):
        raise CorpusFormatError(
            f"The archive lacks {len(missing)} of {len(pins)} Tang files of revision {REVISION[:8]} of {REPOSITORY}, "
            f"such as {missing[0]}.",
            path=path,
        )
