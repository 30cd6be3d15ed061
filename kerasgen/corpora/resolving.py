"""Converts what a user passes as a corpus (a spec string, a source, texts) to a corpus."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

from kerasgen import locations
from kerasgen.corpora import REGISTRY, decompression, windows
from kerasgen.corpora.base import CorpusSource
from kerasgen.corpora.texts import Texts, is_endless
from kerasgen.errors import ArgumentError, CorpusArgumentError, UnknownNameError

_FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def resolve(
    value: str | CorpusSource | Iterable[str] | Callable[[], Iterable[str]],
    *,
    max_documents: int | None = None,
    streaming: bool | int = False,
) -> CorpusSource:
    """Return the corpus that `value` stands for, and read nothing.

    Args:
        value: a spec string (`"sample"`, `"text:path=poems.txt"`), a `CorpusSource`, or an iterable of strings
            (see `Texts`).
        max_documents: how many documents will be read at most, or None for all.
        streaming: whether it is read in windows, again and again; then a function may stand for it, which is called
            for the texts of each pass.

    Raises:
        UnknownNameError: no corpus has the spec string's name.
        CorpusArgumentError: an argument is wrong, or `value` is none of the three; a path gets the spec string
            that reads it.
    """
    if windows.size(streaming):
        source = resolve(windows.of_source(value), max_documents=1)
        windows.require_restartable(source)
        return source
    if max_documents is None and is_endless(value):
        raise CorpusArgumentError(
            "This tf.data.Dataset has no end (it repeats). Pass dataset.take(n), the dataset before its repeat(), "
            "or Pipeline(max_documents=n)."
        )
    if isinstance(value, CorpusSource):
        return value
    if isinstance(value, type) and issubclass(value, CorpusSource):
        raise CorpusArgumentError(f"A corpus is asked for, not its class. Write {value.__name__}(…).")
    if isinstance(value, os.PathLike):
        raise _path_error(os.fspath(value))
    if isinstance(value, str):
        return _create(value)
    if isinstance(value, Iterable):
        return Texts(value)
    if inspect.isgeneratorfunction(value):
        raise CorpusArgumentError(
            f"A corpus is asked for, and {value.__name__} is a function that makes one. Call it: {value.__name__}()."
        )
    raise CorpusArgumentError(
        "corpus must be a spec string such as 'sample' or 'text:path=poems.txt', a CorpusSource, or an iterable of "
        f"strings. Received: {value!r} ({type(value).__name__})."
    )


def _create(text: str) -> CorpusSource:
    try:
        return REGISTRY.create(text)
    except UnknownNameError as unknown:
        if _looks_like_a_path(text):
            raise _path_error(text) from unknown
        raise
    except CorpusArgumentError:
        raise
    except ArgumentError as unreadable:
        raise CorpusArgumentError(str(unreadable)) from unreadable


def _looks_like_a_path(text: str) -> bool:
    return _format_of(text) is not None or any(mark in text for mark in "/\\*~")


def _format_of(path: str) -> str | None:
    named = PurePath(path.lower())
    if named.suffix in decompression.COMPRESSIONS:
        named = named.with_suffix("")
    return _FORMATS.get(named.suffix)


def _path_error(path: str | bytes) -> CorpusArgumentError:
    path_text = os.fsdecode(path)
    name = _format_of(path_text)
    # A value that holds a comma or a quote is quoted as in CSV.
    argument = f"path={path_text}"
    if "," in argument or '"' in argument:
        argument = '"' + argument.replace('"', '""') + '"'
    spec = f"{name or 'text'}:{argument}"
    others = "" if name else f" (or 'jsonl:{argument}', 'csv:{argument}')"
    missing = locations.look(path_text).kind == "nothing" and not any(mark in path_text for mark in "*?[")
    missing_hint = (
        f" There is no file or folder of this name.{locations.hint(Path(path_text).expanduser())}" if missing else ""
    )
    return CorpusArgumentError(
        f"A path alone doesn't say how to read it. Received: {path_text!r}. Write {spec!r}{others}.{missing_hint}"
    )
