"""The chinese-poetry repository to documents: the Tang and Song poems of 全唐诗, one document a poem."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from kerasgen.corpora import verse
from kerasgen.corpora.archives import members
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import (
    CorpusArgumentError,
    CorpusFormatError,
    CorpusUnavailableError,
    MissingDependencyError,
)

FOLDER = "全唐诗"
REPOSITORY = "https://github.com/chinese-poetry/chinese-poetry"
REVISION = "99ebbef7e1345c0985c44b9fd96a3f9e776f117b"
ARCHIVE_URL = f"{REPOSITORY}/archive/{REVISION}.tar.gz"

_FILE = re.compile(r"poet\.(tang|song)\.(\d+)\.json")
_CONVERSIONS = {"simplified": "t2s", "traditional": "s2t"}


@dataclass(frozen=True)
class ChinesePoetry(CorpusSource):
    """Poems of the Tang and Song dynasties, from the files `poet.tang.*.json` and `poet.song.*.json` of 全唐诗.

    A document's text is the poem's couplets, one a line; its metadata are `title`, `author`, `dynasty`, `form`
    (`jueju`, `lüshi` or `other`) and `line_length` (characters, or None if the lines differ). The poems come in the
    order of the files' numbers, Tang before Song. What is not yielded is counted in the tally with its reason.

    Args:
        path: a directory (a checkout of the repository, or the folder 全唐诗 itself) or a `.zip` or `.tar.*` archive
            of either. None downloads the pinned revision once, into the cache.
        dynasty: which poems; `"both"` needs the files of both.
        form: `"five"` and `"seven"` take the poems whose lines all have so many characters, `"jueju"` and `"lüshi"`
            (or `"lushi"`) those with 4 or 8 lines of 5 or 7. Counted after the notes are stripped.
        script: `"simplified"` and `"traditional"` convert text, title and author with OpenCC
            (`pip install 'kerasgen[opencc]'`). `"traditional"` leaves poems alone that hold a traditional character
            already: a second conversion would damage them (后 to 後).
        notes: `"strip"` takes out the editors' notes in round brackets and their footnote numbers, unwraps square
            brackets round restored characters, and drops a poem whose brackets are not balanced, since no one can
            tell its verse from its notes. It is the default because a fifteenth of all characters stand in notes, in
            the prose of modern scholars: a model tuned on them writes footnotes.
        lacunae: what to do with a poem that has lost characters (□), its notes aside. `"drop"` is the default, since
            a model tuned on holes writes holes.
        glyphs: what to do with a poem in which a character is written by its parts (`{臨/手}`); kept as it stands,
            or the poem is dropped.
        deduplicate: drop a poem whose text has come before.
        on_error: `"skip"` counts malformed files and poems as dropped instead of raising.
        url: where the pinned revision's archive is fetched from; a mirror, for example.
        cache_dir: where the download is kept; None is the user's cache directory.

    Raises:
        CorpusArgumentError: a setting is not one of these.
    """

    path: str | None = None
    dynasty: Literal["tang", "song", "both"] = "both"
    form: Literal["any", "five", "seven", "jueju", "lüshi", "lushi"] = "any"
    script: Literal["as_is", "simplified", "traditional"] = "as_is"
    notes: Literal["keep", "strip"] = "strip"
    lacunae: Literal["keep", "drop"] = "drop"
    glyphs: Literal["keep", "drop"] = "keep"
    deduplicate: bool = True
    on_error: Literal["raise", "skip"] = "raise"
    url: str = ARCHIVE_URL
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise CorpusArgumentError(
                    f"chinese_poetry: {name} must be one of {', '.join(map(repr, choices))}. Received: {value!r}."
                )
        if self.form == "lushi":
            object.__setattr__(self, "form", "lüshi")
        for name in ("path", "cache_dir"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
                raise CorpusArgumentError(f"chinese_poetry: {name} must be a path or None. Received: {value!r}.")
            object.__setattr__(self, name, os.fspath(value))
        if not isinstance(self.deduplicate, bool):
            raise CorpusArgumentError(
                f"chinese_poetry: deduplicate must be True or False. Received: {self.deduplicate!r}."
            )
        if not isinstance(self.url, str) or not self.url.startswith(("https://", "http://")):
            raise CorpusArgumentError(
                f"chinese_poetry: url must begin with https:// or http://. Received: {self.url!r}. "
                "For files that are here already, use path=…"
            )

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the poems that the settings ask for, in the order of the files' numbers, Tang before Song.

        Raises:
            CorpusFormatError: a file is malformed or the archive is cut; says which, and the byte or line.
            CorpusUnavailableError: the path holds no such files, or the archive can't be fetched.
            MissingDependencyError: a script is asked for and OpenCC is not installed.
        """
        tally = CorpusTally() if tally is None else tally
        convert = _converter(self.script)
        seen: set[bytes] = set()
        for dynasty, file, index, poem in self._poems(tally):
            document, reason, changes = self._document(dynasty, file, index, poem, convert)
            if document is not None and self.deduplicate:
                # 16 bytes a poem instead of its text: 320,000 poems fit in some tens of megabytes.
                key = hashlib.blake2b(document.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
                if key in seen:
                    document, reason = None, "duplicate text"
                seen.add(key)
            if document is None:
                tally.drop(reason)
                continue
            for change in changes:
                tally.change(change)
            yield tally.keep(document)

    def _document(
        self, dynasty: str, file: str, index: int, poem: dict[str, Any], convert: Callable[[str], str] | None
    ) -> tuple[Document | None, str, list[str]]:
        """The document, or the reason why there is none, and what was changed in it."""
        changes: list[str] = []
        text = "\n".join(poem["paragraphs"])
        if not verse.has_words(text):
            return None, "no text but punctuation", changes
        bare = text
        if verse.balanced(text):
            bare = verse.strip_notes(text)
        elif self.notes == "strip":
            return None, "unbalanced brackets", changes
        without_notes = bare
        bare = verse.strip_marks(bare)
        if self.notes == "strip":
            if not verse.has_words(bare):
                return None, "no text but notes", changes
            if without_notes != text:
                changes.append("notes stripped")
            if bare != without_notes:
                changes.append("footnote numbers or square brackets stripped")
            text = bare
        if self.lacunae == "drop" and verse.LACUNA in bare:
            return None, "lacuna", changes
        if self.glyphs == "drop" and verse.has_glyph(bare):
            return None, "character written by its parts", changes
        form = verse.form(bare)
        if not _fits(form, self.form):
            return None, "another form", changes
        title, author = poem.get("title") or "", poem.get("author") or ""
        if convert is not None:
            converted = convert(text)
            if converted != text:
                changes.append("script converted")
            text, title, author = converted, convert(title), convert(author)
        return (
            Document(
                text=text,
                id=poem.get("id") or f"{file}#{index}",
                metadata={
                    "title": title,
                    "author": author,
                    "dynasty": dynasty,
                    "form": form.form,
                    "line_length": form.line_length,
                },
            ),
            "",
            changes,
        )

    def _poems(self, tally: CorpusTally) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
        """Dynasty, file, index within it, and the poem as it stands in the file."""
        for dynasty, name, content in self._files(tally):
            try:
                poems = _parse(content, name)
            except CorpusFormatError:
                if self.on_error == "raise":
                    raise
                tally.drop(f"malformed file {PurePosixPath(name).name}")
                continue
            for index, poem in enumerate(poems):
                fault = _fault(poem)
                if fault is None:
                    yield dynasty, PurePosixPath(name).name, index, poem
                elif self.on_error == "raise":
                    raise CorpusFormatError(
                        f"{name}: the poem with index {index} {fault}. Use on_error='skip' to pass over it.", path=name
                    )
                else:
                    tally.drop("malformed poem")

    def _files(self, tally: CorpusTally) -> Iterator[tuple[str, str, bytes]]:
        """Dynasty, name and content of the files to be read, in order."""
        path = Path(self.path).expanduser() if self.path is not None else self._download()
        if path.is_dir():
            yield from self._directory_files(path)
        elif path.is_file():
            yield from self._archive_files(path, tally)
        else:
            raise CorpusUnavailableError(
                f"chinese_poetry: there is nothing at {path}. Pass as path= the repository's directory, its folder "
                f"{FOLDER}, or an archive of it; without a path the files are downloaded.",
                path=path,
            )

    def _download(self) -> Path:
        raise CorpusUnavailableError("chinese_poetry: pass path=…")

    def _directory_files(self, path: Path) -> Iterator[tuple[str, str, bytes]]:
        folder = path / FOLDER if (path / FOLDER).is_dir() else path
        names = self._order([entry.name for entry in folder.iterdir() if entry.is_file()], where=folder)
        for dynasty, name in names:
            yield dynasty, str(folder / name), (folder / name).read_bytes()

    def _archive_files(self, path: Path, tally: CorpusTally) -> Iterator[tuple[str, str, bytes]]:
        """The archive's files through one temporary file: an archive has its own order, and going back is slow."""
        places: dict[str, tuple[int, int]] = {}
        with tempfile.TemporaryFile(prefix="kerasgen-") as spool:
            try:
                for name, content in members(path, self._wants):
                    places[name] = (spool.tell(), len(content))
                    spool.write(content)
            except CorpusFormatError as cause:
                if self.on_error == "raise" or not places:
                    raise
                tally.drop(f"archive damaged at byte {cause.byte}")
            for dynasty, name in self._order(list(places), where=path):
                offset, size = places[name]
                spool.seek(offset)
                yield dynasty, f"{path}:{name}", spool.read(size)

    def _wants(self, name: str) -> bool:
        """Whether an archive's member is a poem file of the dynasty; the folder `error` holds rejected ones."""
        place = PurePosixPath(name)
        found = _FILE.fullmatch(place.name)
        return found is not None and place.parent.name != "error" and self.dynasty in (found[1], "both")

    def _order(self, names: list[str], *, where: Path) -> list[tuple[str, str]]:
        """Dynasty and name of the poem files, Tang first, by their numbers."""
        wanted = [name for name in names if self._wants(name)]
        by_folder = Counter(str(PurePosixPath(name).parent) for name in wanted)
        if len(by_folder) > 1:
            named = [folder for folder in by_folder if PurePosixPath(folder).name == FOLDER]
            if len(named) != 1:
                raise CorpusFormatError(
                    f"{where} has poem files in {len(by_folder)} folders ({', '.join(sorted(by_folder))}): which is "
                    f"meant can't be told. Pass the folder {FOLDER} itself as path=.",
                    path=where,
                )
            wanted = [name for name in wanted if str(PurePosixPath(name).parent) == named[0]]
        keyed = []
        for name in wanted:
            found = _FILE.fullmatch(PurePosixPath(name).name)
            assert found is not None  # _wants has matched it
            keyed.append((found[1] == "song", int(found[2]), found[1], name))
        present = {dynasty for *_, dynasty, _ in keyed}
        missing = [d for d in ("tang", "song") if self.dynasty in (d, "both") and d not in present]
        if missing:
            hint = "".join(f" It has those of {dynasty}: pass dynasty={dynasty!r} for them." for dynasty in present)
            raise CorpusUnavailableError(
                f"chinese_poetry: {where} holds no file poet.{missing[0]}.*.json, neither in a folder {FOLDER} nor at "
                f"its top.{hint}",
                path=where,
            )
        return [(dynasty, name) for _, _, dynasty, name in sorted(keyed)]


_CHOICES: dict[str, tuple[str, ...]] = {
    "dynasty": ("tang", "song", "both"),
    "form": ("any", "five", "seven", "jueju", "lüshi", "lushi"),
    "script": ("as_is", "simplified", "traditional"),
    "notes": ("keep", "strip"),
    "lacunae": ("keep", "drop"),
    "glyphs": ("keep", "drop"),
    "on_error": ("raise", "skip"),
}


def _fits(found: verse.VerseForm, wanted: str) -> bool:
    if wanted in ("five", "seven"):
        return found.line_length == (5 if wanted == "five" else 7)
    return wanted in ("any", found.form)


def _parse(content: bytes, name: str) -> list[Any]:
    """The poems of a file.

    Raises:
        CorpusFormatError: it is not UTF-8, not JSON, or not a list.
    """
    byte, line = 0, 1
    try:
        text = content.decode("utf-8-sig")
        poems = json.loads(text)
    except UnicodeDecodeError as cause:
        byte, problem = cause.start, f"is not UTF-8: {cause.reason}"
        line = content.count(b"\n", 0, byte) + 1
        error: Exception = cause
    except json.JSONDecodeError as cause:
        byte = len(cause.doc[: cause.pos].encode("utf-8"))
        line, problem, error = cause.lineno, f"is not JSON: {cause.msg}", cause
    except RecursionError as cause:
        problem, error = "is nested too deeply to be a list of poems", cause
    else:
        if isinstance(poems, list):
            return poems
        problem, error = f"holds no list of poems but a {type(poems).__name__}", ValueError(name)
    raise CorpusFormatError(
        f"{name} {problem}, at byte {byte} (line {line}). Fetch it again, or use on_error='skip' to pass over it.",
        path=name,
        line=line,
        byte=byte,
    ) from error


def _fault(poem: Any) -> str | None:
    """What is wrong with an entry, or None."""
    if not isinstance(poem, dict):
        return f"is no object but a {type(poem).__name__}"
    paragraphs = poem.get("paragraphs")
    if not isinstance(paragraphs, list) or not all(isinstance(paragraph, str) for paragraph in paragraphs):
        return "has no list of texts under 'paragraphs'"
    for key in ("title", "author", "id"):
        if not isinstance(poem.get(key), (str, type(None))):
            return f"has no text under {key!r}"
    return None


def _converter(script: str) -> Callable[[str], str] | None:
    """The conversion to a script, or None where there is nothing to do."""
    if script == "as_is":
        return None
    try:
        import opencc
    except ImportError as cause:
        raise MissingDependencyError(
            f"script={script!r} needs OpenCC. Install it with: pip install 'kerasgen[opencc]'",
            package="opencc",
            extra="opencc",
        ) from cause
    simplify = opencc.OpenCC("t2s").convert
    if script == "simplified":
        return lambda text: str(simplify(text))
    complicate = opencc.OpenCC("s2t").convert
    return lambda text: text if simplify(text) != text else str(complicate(text))
