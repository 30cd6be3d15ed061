"""Reads poems from the other folders of the chinese-poetry repository, or from one of its files, by their shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kerasgen import keywords
from kerasgen.corpora.archives import spooled
from kerasgen.corpora.paths import COMPRESSIONS, files_below
from kerasgen.corpora.poetry_repository import FOLDER, PoemFile
from kerasgen.corpora.streams import read_whole
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError


class Collection(NamedTuple):
    """A folder of the repository.

    Args:
        folder: its name there, which is the collection's.
        alias: the same in Latin letters.
        dynasty: when its poems were written, for their metadata.
        has_plays: whether spoken prose of plays stands between its songs.
    """

    folder: str
    alias: str
    dynasty: str
    has_plays: bool = False


COLLECTIONS: Mapping[str, Collection] = {
    collection.folder: collection
    for collection in (
        Collection(FOLDER, "quan_tang_shi", "tang"),
        Collection("御定全唐詩", "yuding_quan_tang_shi", "tang"),
        Collection("水墨唐诗", "shuimo_tang_shi", "tang"),
        Collection("五代诗词", "wudai_shici", "five dynasties"),
        Collection("宋词", "song_ci", "song"),
        Collection("元曲", "yuan_qu", "yuan", has_plays=True),
        Collection("诗经", "shi_jing", "zhou"),
        Collection("楚辞", "chu_ci", "zhou"),
        Collection("曹操诗集", "cao_cao", "han"),
        Collection("纳兰性德", "nalan_xingde", "qing"),
        Collection("蒙学", "meng_xue", ""),
        Collection("论语", "lun_yu", "zhou"),
        Collection("四书五经", "sishu_wujing", "zhou"),
        Collection("幽梦影", "youmengying", "qing"),
    )
}
AUTO, ALL = "auto", "all"
PROSE = ("蒙学", "论语", "四书五经", "幽梦影")
"""Not in `"all"`: primers, and prose."""

TEXT_FIELDS = ("paragraphs", "content", "para")
_TITLE_FIELDS = ("title", "rhythmic", "chapter", "type")
_KEPT_FIELDS = ("rhythmic", "chapter", "section", "volume")
# The characters of the folders' names that the two scripts write differently.
_SIMPLIFIED = str.maketrans("詩詞經辭納蘭學論語書", "诗词经辞纳兰学论语书")
_NUMBER = re.compile(r"\d+")
_PREFACE = re.compile(r"preface|intro", re.IGNORECASE)


def collection_named(name: str) -> str | None:
    """Return the folder's name for a collection's name in either script or its alias; `"auto"` and `"all"` as they are.

    None for any other name.
    """
    if name in (AUTO, ALL) or name in COLLECTIONS:
        return name
    in_both = {folder.translate(_SIMPLIFIED): folder for folder in COLLECTIONS}
    own = in_both.get(name.translate(_SIMPLIFIED))
    return own or next((collection.folder for collection in COLLECTIONS.values() if collection.alias == name), None)


def near_collection(name: object) -> str:
    """Return ` Did you mean '宋词'?` with its space for a wrong collection in either script, or nothing."""
    if not isinstance(name, str):
        return ""
    known = [AUTO, ALL, *COLLECTIONS, *(collection.alias for collection in COLLECTIONS.values())]
    return keywords.did_you_mean(name, known)


def is_single_file(path: Path) -> bool:
    """Return whether a path names one file of poems, compressed or not, rather than a folder or an archive."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name.endswith((".json", ".jsonl", ".ndjson")) and not path.is_dir()


def single_file(path: Path) -> PoemFile:
    """Return a file of poems, with the dynasty that its name or its folder gives.

    Raises:
        CorpusUnavailableError: there is no such file.
    """
    if not path.exists():
        raise CorpusUnavailableError(f"chinese_poetry: there is no file {path}.", path=path)
    folder = path.absolute().parent.name
    return PoemFile(_dynasty(folder, path.name), str(path), path.name, read_whole(path))


def collection_files(
    path: Path, collection: str, on_damage: Callable[[CorpusFormatError], None] | None = None
) -> Iterator[tuple[Collection, PoemFile]]:
    """Yield a collection's files in the order of the numbers in their names.

    Args:
        path: the repository, one of its folders, or an archive of either.
        collection: a folder's name; `"auto"` for the one that is there, `"all"` for all that are and hold verse.
        on_damage: as for `poem_files`.

    Raises:
        CorpusFormatError: the archive is cut or damaged.
        CorpusUnavailableError: nothing is there, or not that collection, or several and none was chosen.
    """
    if path.is_dir():
        files = {file.name: file.path for file in files_below(path, ".json") if file.path.is_file()}
        for own, name in _chosen(list(files), collection, path):
            yield own, PoemFile(_dynasty(own.folder, name), str(files[name]), name, read_whole(files[name]))
        return
    if not path.is_file():
        raise CorpusUnavailableError(
            f"chinese_poetry: there is nothing at {path}. Pass as path= the repository's directory, one of its folders "
            f"such as {FOLDER}, a .json file of one, or an archive; without a path the repository is downloaded.",
            path=path,
        )
    with spooled(path, lambda name: _is_wanted(name, collection), on_damage) as (names, read):
        for own, name in _chosen(names, collection, path):
            yield own, PoemFile(_dynasty(own.folder, name), f"{path}:{name}", name, read(name))


def poems_in(value: Any) -> Iterator[dict[str, Any] | str]:
    """Yield the poems that a file's JSON holds, each with `paragraphs` and `title`, or why an entry holds none.

    A poem is an object with a list of lines, or one text, under `paragraphs`, `content` or `para`. Objects that hold a
    list of such objects there are gone into; the poems in them inherit title and author.
    """
    yield from _poems_in(value, {})


def _poems_in(value: Any, above: Mapping[str, Any]) -> Iterator[dict[str, Any] | str]:
    if isinstance(value, list):
        for item in value:
            yield from _poems_in(item, above)
        return
    if not isinstance(value, dict):
        yield f"is no object but {type(value).__name__}"
        return
    field = next((name for name in TEXT_FIELDS if value.get(name) is not None), None)
    if field is None:
        fields = ", ".join(map(repr, value)) or "nothing"
        yield f"has no text under {' or '.join(map(repr, TEXT_FIELDS))}, but only {fields}"
        return
    content = value[field]
    own = {name: value[name] for name in ("author", "dynasty", "id", *_KEPT_FIELDS) if isinstance(value.get(name), str)}
    title = next((value[name] for name in _TITLE_FIELDS if isinstance(value.get(name), str) and value[name]), None)
    if title is not None:
        own["title"] = title
    own = {**above, **own}
    if isinstance(content, str):
        yield {**own, "paragraphs": content.split("\n")}
    elif isinstance(content, list) and all(isinstance(line, str) for line in content):
        yield {**own, "paragraphs": content}
    elif isinstance(content, (list, dict)) and not any(isinstance(line, str) for line in content):
        yield from _poems_in(content, {name: text for name, text in own.items() if name != "id"})
    else:
        yield f"has no list of texts under {field!r}"


def is_preface(name: str) -> bool:
    """Return whether a file's name says that it holds a preface."""
    return _PREFACE.search(PurePosixPath(name).name) is not None


def _is_wanted(name: str, collection: str) -> bool:
    place = PurePosixPath(name)
    if place.suffix != ".json" or place.name.startswith(".") or "error" in place.parts:
        return False
    if collection in (AUTO, ALL):
        return FOLDER not in place.parts
    return collection in place.parts or not any(part in COLLECTIONS for part in place.parts)


def _chosen(names: list[str], collection: str, where: Path) -> list[tuple[Collection, str]]:
    """Return the files of the collection in order, each with its collection."""
    own = next((part for part in reversed(where.absolute().parts) if part in COLLECTIONS), None)
    by_folder: dict[str, list[str]] = {}
    for name in names:
        place = PurePosixPath(name)
        if place.name.startswith(".") or "error" in place.parts:
            continue
        folder = next((part for part in place.parts if part in COLLECTIONS), own or "")
        by_folder.setdefault(folder, []).append(name)
    present = [folder for folder in COLLECTIONS if folder in by_folder] + [""] * ("" in by_folder)
    if collection == ALL:
        folders = [folder for folder in present if folder and folder not in (*PROSE, FOLDER)]
    elif collection != AUTO:
        folders = [collection] if collection in present else []
    else:
        named = [folder for folder in present if folder]
        folders = named or present
        if len(folders) > 1:
            raise CorpusUnavailableError(
                f"chinese_poetry: {where} holds several collections: {', '.join(folders)}. Choose one with "
                f"collection={folders[0]!r}, or all that hold verse with collection='all'.",
                path=where,
            )
    if not folders:
        there_are = f" It holds: {', '.join(filter(None, present))}." if any(present) else ""
        wanted = "no .json file of poems" if collection in (AUTO, ALL) else f"no collection {collection}"
        raise CorpusUnavailableError(
            f"chinese_poetry: {where} holds {wanted}, neither files poet.tang.*.json and poet.song.*.json of {FOLDER} "
            f"nor another folder of the repository.{there_are}",
            path=where,
        )
    return [
        (COLLECTIONS.get(folder, Collection("", "", "")), name)
        for folder in folders
        for name in sorted(by_folder[folder], key=_natural)
    ]


def _natural(name: str) -> tuple[Any, ...]:
    """Return a sort key: names by the numbers in them; a collection's larger files come before a selection."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def _dynasty(folder: str, name: str) -> str:
    file = PurePosixPath(name).name
    for dynasty in ("tang", "song"):
        if file.startswith((f"poet.{dynasty}.", f"ci.{dynasty}.")):
            return dynasty
    return COLLECTIONS[folder].dynasty if folder in COLLECTIONS else ""
