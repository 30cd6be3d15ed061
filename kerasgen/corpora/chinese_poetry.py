"""The chinese-poetry repository to documents: the Tang and Song poems of 全唐诗, one document a poem."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kerasgen.corpora import verse
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.poetry_repository import (
    ARCHIVE_URL,
    DYNASTIES,
    REPOSITORY,
    REVISION,
    PoemFile,
    poem_files,
    verify_archive,
)
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, MissingDependencyError


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
            tell its verse from its notes. It is the default because 6.5 % of all characters stand in notes, in
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
        for file, index, poem in self._poems(tally):
            document, reason, changes = self._document(file, index, poem, convert)
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
        self, file: PoemFile, index: int, poem: dict[str, Any], convert: Callable[[str], str] | None
    ) -> tuple[Document | None, str, list[str]]:
        """The document, or the reason why there is none, and what was changed in it."""
        changes: list[str] = []
        text = "\n".join(poem["paragraphs"])
        if not verse.has_words(text):
            return None, "no text but punctuation", changes
        if verse.balanced(text):
            verse_only = verse.strip_notes(text)
        elif self.notes == "strip":
            return None, "unbalanced brackets", changes
        else:
            verse_only = text
        bare = verse.close_up(verse.strip_marks(verse_only))
        if self.notes == "strip":
            if not bare:
                return None, "no text but notes", changes
            if verse_only != text:
                changes.append("notes stripped")
            if verse.strip_marks(verse_only) != verse_only:
                changes.append("footnote numbers or square brackets stripped")
            if not changes and bare != text:
                changes.append("stray punctuation closed up")
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
                id=poem.get("id") or f"{file.name}#{index}",
                metadata={
                    "title": title,
                    "author": author,
                    "dynasty": file.dynasty,
                    "form": form.form,
                    "line_length": form.line_length,
                },
            ),
            "",
            changes,
        )

    def _poems(self, tally: CorpusTally) -> Iterator[tuple[PoemFile, int, dict[str, Any]]]:
        """The poems as they stand in the files: the file, the index within it, the poem."""
        skip = self.on_error == "skip"
        for file in poem_files(
            Path(self.path).expanduser() if self.path is not None else self._download(),
            DYNASTIES if self.dynasty == "both" else (self.dynasty,),
            on_damage=(lambda error: tally.drop(f"archive damaged at byte {error.byte}")) if skip else None,
        ):
            try:
                poems = file.poems()
            except CorpusFormatError:
                if not skip:
                    raise
                tally.drop(f"malformed file {file.name}")
                continue
            for index, poem in enumerate(poems):
                fault = _fault(poem)
                if fault is None:
                    yield file, index, poem
                elif skip:
                    tally.drop("malformed poem")
                else:
                    raise CorpusFormatError(
                        f"{file.place}: the poem with index {index} {fault}. Use on_error='skip' to pass over it.",
                        path=file.place,
                    )

    def _download(self) -> Path:
        from platformdirs import user_cache_path

        from kerasgen.corpora.download import fetch

        folder = user_cache_path("kerasgen") if self.cache_dir is None else Path(self.cache_dir).expanduser()
        return fetch(
            self.url,
            folder / f"chinese-poetry-{REVISION}.archive",  # zip or tar: told by its first bytes
            check=verify_archive,
            advice=f"If you have the repository {REPOSITORY}, or an archive of it, pass it as path=….",
        )


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
