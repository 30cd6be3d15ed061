"""Reads poems of the chinese-poetry repository, from 全唐诗 or another folder; each poem is a document."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from kerasgen import cache, locations
from kerasgen.corpora import document_cache, poetry_collections, verse, verse_scripts, verse_variants
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.poetry_collections import AUTO, COLLECTIONS, PROSE
from kerasgen.corpora.poetry_repository import (
    ARCHIVE_URL,
    DYNASTIES,
    FOLDER,
    REPOSITORY,
    REVISION,
    PoemFile,
    poem_files,
    verify_archive,
)
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError
from kerasgen.files import presence
from kerasgen.keywords import meant


@dataclass(frozen=True)
class ChinesePoetry(CorpusSource):
    """Poems of the Tang and Song dynasties, or of another collection of the chinese-poetry repository.

    A document's text is the poem's couplets, one a line; its metadata are `title`, `author`, `dynasty`, `form`
    (`jueju`, `lüshi` or `other`) and `line_length` (characters, or None if the lines differ), and outside of 全唐诗
    the `collection` and what else an entry says of itself (`rhythmic`, `chapter`, `section`, `volume`). The poems come
    in the order of the files' numbers, Tang before Song. What is not yielded is counted in the tally with its reason.

    Args:
        path: a directory (a checkout of the repository, or one of its folders), a `.zip` or `.tar.*` archive of either,
            or a single `.json` file of one. None downloads the pinned revision once, into the cache.
        dynasty: which half of 全唐诗; `"both"` needs the files of both.
        collection: the repository's folder: `"全唐诗"`, `"宋词"`, `"元曲"`, `"五代诗词"`, `"诗经"`, `"楚辞"`,
            `"曹操诗集"`, `"纳兰性德"`, `"御定全唐詩"`, `"水墨唐诗"`, `"蒙学"`, `"论语"`, `"四书五经"`, `"幽梦影"`, or
            its name in Latin letters (`"song_ci"`, `"yuan_qu"`, `"shi_jing"`, …). `"all"` reads every one that is there
            and holds verse, but for 全唐诗. `"auto"` takes 全唐诗 where it is there, else the one collection that is.
        form: `"five"` and `"seven"` take the poems whose lines all have so many characters, `"jueju"` and `"lüshi"`
            (or `"lushi"`) those with 4 or 8 lines of 5 or 7. Counted after the notes are stripped.
        script: `"simplified"` and `"traditional"` convert text, title and author with OpenCC
            (`pip install 'kerasgen[opencc]'`). `"traditional"` leaves poems alone that hold a traditional character
            already: a second conversion would damage them (后 to 後).
        notes: `"strip"` takes out the editors' notes in round brackets and their footnote numbers, unwraps square
            brackets round restored characters, and drops a poem whose brackets are not balanced, since no one can
            tell its verse from its notes. It is the default because 6.5 % of all characters stand in notes, in
            the prose of modern scholars: a model tuned on them writes footnotes.
            One stray bracket is mended where it leaves no doubt. Directions for singers in 〔 〕 go too, and with a
            play's songs the scenes that are partly spoken.
        lacunae: what to do with a poem that has lost characters (□, ●, 囗, …), its notes aside, or whose note says that
            the rest is lost. `"drop"` is the default, since a model tuned on holes writes holes.
        fragments: what to do with entries that are no whole poem: single lines under titles such as 句 and 逸句, and
            titles of poems that stand elsewhere (存目). `"drop"` is the default.
        unify_variants: write one form for each variant character: 黃 for 黄, 卻 for 却, 峰 for 峯. A vocabulary then
            needs one token for them, and poems that two editions write differently are duplicates.
        glyphs: what to do with a poem in which a character is written by its parts (`{臨/手}`); kept as it stands,
            or the poem is dropped.
        deduplicate: drop a poem whose text has come before.
        on_error: `"skip"` counts malformed files and poems as dropped instead of raising.
        url: where the pinned revision's archive is fetched from; a mirror, for example.
        cache_dir: where the download is kept; None is kerasgen's cache directory.

    Raises:
        CorpusArgumentError: a setting is not one of these.
    """

    path: str | None = None
    dynasty: Literal["tang", "song", "both"] = "both"
    collection: str = field(default="auto", kw_only=True)
    form: Literal["any", "five", "seven", "jueju", "lüshi", "lushi"] = "any"
    script: Literal["as_is", "simplified", "traditional"] = "as_is"
    notes: Literal["keep", "strip"] = "strip"
    lacunae: Literal["keep", "drop"] = "drop"
    fragments: Literal["keep", "drop"] = field(default="drop", kw_only=True)
    glyphs: Literal["keep", "drop"] = "keep"
    unify_variants: bool = field(default=False, kw_only=True)
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
                    f"{meant(value, choices)}"
                )
        if self.form == "lushi":
            object.__setattr__(self, "form", "lüshi")
        named = poetry_collections.collection_named(self.collection) if isinstance(self.collection, str) else None
        if named is None:
            raise CorpusArgumentError(
                f"chinese_poetry: collection must be 'auto', 'all', {', '.join(map(repr, COLLECTIONS))}, or one of "
                f"{', '.join(collection.alias for collection in COLLECTIONS.values())}. Received: {self.collection!r}."
                f"{poetry_collections.near_collection(self.collection)}"
            )
        object.__setattr__(self, "collection", named)
        if self.dynasty != "both" and named not in (AUTO, FOLDER):
            raise CorpusArgumentError(
                f"chinese_poetry: dynasty={self.dynasty!r} chooses a half of {FOLDER}, and collection={named!r} has "
                "none. Leave one of the two out."
            )
        for name in ("path", "cache_dir"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
                raise CorpusArgumentError(f"chinese_poetry: {name} must be a path or None. Received: {value!r}.")
            object.__setattr__(self, name, os.fspath(value))
        for name in ("deduplicate", "unify_variants"):
            if not isinstance(getattr(self, name), bool):
                raise CorpusArgumentError(
                    f"chinese_poetry: {name} must be True or False. Received: {getattr(self, name)!r}."
                )
        if not isinstance(self.url, str) or not self.url.startswith(("https://", "http://")):
            raise CorpusArgumentError(
                f"chinese_poetry: url must begin with https://, or http:// on this machine. Received: {self.url!r}. "
                "For files that are here already, use path=…"
            )

    def about(self) -> Mapping[str, Any]:
        """Return what the collection says of itself; the licence of the pinned revision alone."""
        address = "https://github.com/chinese-poetry/chinese-poetry"
        about = {"name": "chinese-poetry, a collection of classical Chinese verse", "languages": ["zh"], "url": address}
        return about | ({"license": "mit"} if self.path is None else {})

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the poems that the settings ask for, in the order of the files' numbers, Tang before Song.

        Raises:
            CorpusFormatError: a file is malformed or the archive is cut; says which, and the byte or line.
            CorpusUnavailableError: the path holds no such files, or the archive can't be fetched.
            MissingDependencyError: a script is asked for and OpenCC is not installed.
        """
        tally = CorpusTally() if tally is None else tally
        convert = verse_scripts.converter(self.script)
        seen: set[bytes] = set()
        for entry in self._entries(tally):
            document, reason, changes = self._document(entry, convert)
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

    def _document(self, entry: _Entry, convert: Callable[[str], str] | None) -> tuple[Document | None, str, list[str]]:
        """Return an entry's document, or the reason why it has none, and the changes made to it."""
        changes: list[str] = []
        poem, more = entry.poem, dict(entry.more)
        text = "\n".join(poem["paragraphs"])
        title, author = poem.get("title") or "", poem.get("author") or ""
        if not verse.has_words(text):
            return None, "no text but punctuation", changes
        if self.fragments == "drop":
            if verse.is_catalogue_entry(title, text):
                return None, "title without its poem (存目)", changes
            if verse.is_fragment(title):
                return None, "fragment (句)", changes
        if self.notes == "strip":
            if entry.has_plays and verse.has_speech(text):
                return None, "partly spoken scene of a play", changes
            mended = verse.mend_brackets(text)
            if mended is None:
                return None, "unbalanced brackets", changes
            if mended != text:
                changes.append("stray bracket mended")
            verse_only = verse.strip_remarks(verse.strip_notes(mended))
        else:
            verse_only = mended = text
            if verse.balanced(text):
                verse_only = verse.strip_notes(text)
        bare = verse.close_up(verse.strip_marks(verse_only))
        if self.notes == "strip":
            if not bare or verse.is_placeholder(bare):
                return None, "no text but notes", changes
            if entry.is_prose or verse.is_editors_prose(title, bare):
                return None, "preface or editor's prose", changes
            if verse_only != mended:
                changes.append("notes stripped")
            if verse.strip_marks(verse_only) != verse_only:
                changes.append("footnote numbers or square brackets stripped")
            if not changes and bare != text:
                changes.append("stray punctuation closed up")
            text = bare
        if self.lacunae == "drop" and (verse.has_lacuna(bare) or verse.says_lost(mended)):
            return None, "lacuna", changes
        if self.glyphs == "drop" and verse.has_glyph(bare):
            return None, "character written by its parts", changes
        form = verse.form(bare)
        if not _fits(form, self.form):
            return None, "another form", changes
        if convert is not None:
            converted = convert(text)
            if converted != text:
                changes.append("script converted")
            text, title, author = converted, convert(title), convert(author)
            more = {name: value if name == "collection" else convert(value) for name, value in more.items()}
        if self.unify_variants:
            unified = verse_variants.unify(text)
            if unified != text:
                changes.append("variant characters unified")
            text, title, author = unified, verse_variants.unify(title), verse_variants.unify(author)
        return (
            Document(
                text=text,
                id=poem.get("id") or entry.name,
                metadata={
                    "title": title,
                    "author": author,
                    "dynasty": poem.get("dynasty") or entry.dynasty,
                    "form": form.form,
                    "line_length": form.line_length,
                    **more,
                },
            ),
            "",
            changes,
        )

    def fingerprint(self) -> str | None:
        """Return the settings, the code's digits and those of the archive or file.

        None for a directory, and where OpenCC converts, which has versions of its own.
        """
        path = self._download_path() if self.path is None else Path(self.path).expanduser()
        code = document_cache.code_digest()
        if code is None or self.script != "as_is":
            return None
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:  # a directory, or what reading it will tell
            return None
        settings = dataclasses.asdict(self)
        for elsewhere in ("path", "url", "cache_dir"):
            del settings[elsewhere]
        # A single file's name tells its dynasty, and its folder's the collection.
        names = path.absolute().parts[-2:]
        return repr([code, sorted(settings.items()), names, content])

    def check(self) -> None:
        """Look for the path, if there is one."""
        if self.path is not None and not presence.exists(Path(self.path).expanduser()):
            raise CorpusUnavailableError(f"chinese_poetry: {locations.look(self.path)}", path=self.path)

    def _entries(self, tally: CorpusTally) -> Iterator[_Entry]:
        """Yield the poems as they stand in the files."""
        path = Path(self.path).expanduser() if self.path is not None else self._download()
        if poetry_collections.is_single_file(path):
            file = poetry_collections.single_file(path)
            if self.dynasty not in ("both", file.dynasty):
                raise CorpusArgumentError(
                    f"chinese_poetry: {path} is no file poet.{self.dynasty}.*.json. Leave dynasty={self.dynasty!r} out."
                )
            yield from self._by_shape(COLLECTIONS.get(path.absolute().parent.name), file, tally, alone=True)
        elif self.collection == FOLDER or self.dynasty != "both":
            dynasties = DYNASTIES if self.dynasty == "both" else (self.dynasty,)
            yield from self._of_files(poem_files(path, dynasties, on_damage=self._on_damage(tally)), tally)
        elif self.collection != AUTO:
            yield from self._of_collection(path, tally)
        else:
            files = poem_files(path, on_damage=self._on_damage(tally), optional=True)
            first = next(files, None)
            if first is None:
                yield from self._of_collection(path, tally)
            else:
                yield from self._of_files(chain([first], files), tally)

    def _of_collection(self, path: Path, tally: CorpusTally) -> Iterator[_Entry]:
        for collection, file in poetry_collections.collection_files(
            path, self.collection, on_damage=self._on_damage(tally)
        ):
            yield from self._by_shape(collection, file, tally)

    def _by_shape(
        self,
        collection: poetry_collections.Collection | None,
        file: PoemFile,
        tally: CorpusTally,
        *,
        alone: bool = False,
    ) -> Iterator[_Entry]:
        """Yield the poems of a file of any layout; skip a file without poems, unless it is the only one named."""
        skip = self.on_error == "skip"
        try:
            poems = list(poetry_collections.poems_in(file.value()))
        except CorpusFormatError:
            if not skip:
                raise
            tally.drop(f"malformed file {file.name}")
            return
        if not any(isinstance(poem, dict) for poem in poems) and not (alone and poems and not skip):
            tally.drop(f"no poems in the file {file.name}")
            return
        folder = "" if collection is None else collection.folder
        for index, poem in enumerate(poems):
            fault = poem if isinstance(poem, str) else None
            if isinstance(poem, dict):
                more = {name: poem[name] for name in ("rhythmic", "chapter", "section", "volume") if poem.get(name)}
                yield _Entry(
                    poem,
                    f"{file.name}#{index}",
                    file.dynasty,
                    {"collection": folder, **more},
                    is_prose=folder not in PROSE and poetry_collections.is_preface(file.name),
                    has_plays=collection is not None and collection.has_plays,
                )
            elif skip:
                tally.drop("malformed poem")
            else:
                raise _malformed(file, index, str(fault))

    def _of_files(self, files: Iterable[PoemFile], tally: CorpusTally) -> Iterator[_Entry]:
        skip = self.on_error == "skip"
        for file in files:
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
                    yield _Entry(poem, f"{file.name}#{index}", file.dynasty)
                elif skip:
                    tally.drop("malformed poem")
                else:
                    raise _malformed(file, index, fault)

    def _on_damage(self, tally: CorpusTally) -> Callable[[CorpusFormatError], None] | None:
        if self.on_error != "skip":
            return None
        return lambda error: tally.drop(f"archive damaged at byte {error.byte}")

    def _download_path(self) -> Path:
        folder = cache.directory() if self.cache_dir is None else Path(self.cache_dir).expanduser()
        return folder / f"chinese-poetry-{REVISION}.archive"  # zip or tar: told by its first bytes

    def _download(self) -> Path:
        from kerasgen.corpora.download import fetch

        return fetch(
            self.url,
            self._download_path(),
            check=verify_archive,
            advice=f"If you have the repository {REPOSITORY}, or an archive of it, pass it as path=….",
        )


@dataclass(frozen=True)
class _Entry:
    """A poem as it stands in a file, with what the file says of it."""

    poem: dict[str, Any]
    name: str
    dynasty: str
    more: Mapping[str, str] = field(default_factory=dict)
    is_prose: bool = False
    has_plays: bool = False


_CHOICES: dict[str, tuple[str, ...]] = {
    "dynasty": ("tang", "song", "both"),
    "form": ("any", "five", "seven", "jueju", "lüshi", "lushi"),
    "script": ("as_is", "simplified", "traditional"),
    "notes": ("keep", "strip"),
    "lacunae": ("keep", "drop"),
    "fragments": ("keep", "drop"),
    "glyphs": ("keep", "drop"),
    "on_error": ("raise", "skip"),
}


def _fits(form: verse.VerseForm, wanted: str) -> bool:
    if wanted in ("five", "seven"):
        return form.line_length == (5 if wanted == "five" else 7)
    return wanted in ("any", form.form)


def _fault(poem: Any) -> str | None:
    """Return what is wrong with an entry, or None."""
    if not isinstance(poem, dict):
        return f"is no object but a {type(poem).__name__}"
    paragraphs = poem.get("paragraphs")
    if not isinstance(paragraphs, list) or not all(isinstance(paragraph, str) for paragraph in paragraphs):
        return "has no list of texts under 'paragraphs'"
    for key in ("title", "author", "id"):
        if not isinstance(poem.get(key), (str, type(None))):
            return f"has no text under {key!r}"
    return None


def _malformed(file: PoemFile, index: int, fault: str) -> CorpusFormatError:
    return CorpusFormatError(
        f"{file.place}: the poem with index {index} {fault}. Use on_error='skip' to pass over it.", path=file.place
    )
