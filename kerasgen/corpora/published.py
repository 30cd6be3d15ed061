"""Reads a published data set from CSV or JSON files, with the documents that TFDS would give."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.corpora.file_kinds import advice, kind_of
from kerasgen.corpora.json_records import Fault, read_records
from kerasgen.corpora.paths import File, find_files, has_suffix
from kerasgen.corpora.streams import check_path, decode_line, head_of, read_lines
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError

_JSON = (".jsonl", ".ndjson", ".json")
_CSV = (".csv", ".tsv")


@dataclass(frozen=True)
class Layout:
    """The names of a data set's fields in the files that people pass on.

    Args:
        name: the name of the corpus, for messages.
        fields: TFDS's name of each text, and the names that it has in files, the first that is there counts.
        ids: the names that a record's id has.
        needed: TFDS's name of a text without which a record is no document, or None.
    """

    name: str
    fields: Mapping[str, tuple[str, ...]]
    ids: tuple[str, ...] = ("id",)
    needed: str | None = None


def check(path: str | os.PathLike[str] | None) -> str | None:
    """Return the path as text.

    Raises:
        CorpusArgumentError: it is no path.
    """
    return None if path is None else check_path(path)


def find(path: str, split: str, layout: Layout) -> list[File]:
    """Return the files that hold a split.

    Raises:
        CorpusArgumentError: the split is a slice, which files have none of, or the path is one file of another split.
        CorpusUnavailableError: there is no such file.
    """
    if "[" in split or "+" in split:
        raise CorpusArgumentError(
            f"With path=…, split names the files to read, such as 'train'. Received: {split!r}. For a part of them, "
            "pass max_documents to the pipeline."
        )
    files = find_files(path, (*_JSON, *_CSV))
    if not Path(path).expanduser().is_dir():
        if split != "train" and split not in Path(path).name:
            raise CorpusArgumentError(
                f"{layout.name}: split={split!r} chooses among the files of a folder, and {path!r} is one file. Leave "
                "split out to read all of it."
            )
        return files
    chosen = [file for file in files if Path(file.name).name.startswith(split)]
    if not chosen and split == "train" and not any(_is_split(file) for file in files):
        return files
    if not chosen:
        raise CorpusUnavailableError(
            f"{layout.name}: the folder {path!r} holds no file whose name begins with {split!r}. It holds: "
            f"{', '.join(file.name for file in files[:8])}.",
            path=path,
        )
    return chosen


def documents(path: str, split: str, text: str, layout: Layout, tally: CorpusTally) -> Iterator[Document]:
    """Yield the documents of CSV or JSON files, with the fields that TFDS has, in the order of the files' names.

    A text of nothing but white space, or null, is dropped and counted as "empty".

    Args:
        path: a file, or a folder of which the files count whose names begin with the split's.
        split: "train", …; of a single file all is read.
        text: which field, by TFDS's name.
        layout: the layout of the data set.
        tally: filled while the documents are drawn.

    Raises:
        CorpusArgumentError: the split is a slice, which files have none of, or the path is one file of another split.
        CorpusFormatError: a file is malformed, or lacks the field.
        CorpusUnavailableError: there is no such file.
    """
    for file in find(path, split, layout):
        records = _rows(file, text, layout) if has_suffix(file.path, _CSV) else _objects(file, text, layout)
        for record, name, line in records:
            if layout.needed is not None and not str(_first_value(record, layout.fields[layout.needed]) or "").strip():
                tally.drop(f"no {layout.needed}")
                continue
            value = _first_value(record, layout.fields[text])
            if value is not None and not isinstance(value, str):
                raise _malformed(file, line, f": what stands for {text!r} is no text but {value!r:.40}")
            if value is None or not value.strip():
                tally.drop("empty")
                continue
            own = _first_value(record, layout.ids)
            yield tally.keep(
                Document(
                    text=value.strip(),
                    id=name if own is None else str(own),
                    metadata=_metadata(record, text, layout),
                )
            )


def _metadata(record: Mapping[str, Any], text: str, layout: Layout) -> dict[str, Any]:
    """Return the record's other fields, with TFDS's names for those of the data set."""
    used_names = {*layout.ids, *layout.fields[text]}
    metadata = {}
    for field, names in layout.fields.items():
        source_name = next((name for name in names if name in record), None)
        if field != text and source_name is not None:
            metadata[field] = record[source_name]
            used_names.add(source_name)
    return metadata | {name: value for name, value in record.items() if name not in used_names | metadata.keys()}


def _first_value(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the value of the first of these fields that the record has, or None."""
    return next((record[name] for name in names if name in record), None)


def _is_split(file: File) -> bool:
    return Path(file.name).name.startswith(("train", "valid", "test", "dev"))


def _objects(file: File, text: str, layout: Layout) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield each object of JSON, its name in the file, and its line."""
    wrong = kind_of(head_of(file.path))
    if wrong is not None:
        raise CorpusFormatError(
            f"{str(file.path)!r} is neither CSV nor JSON but {wrong}. {advice(wrong)}", path=file.path
        )
    for record in read_records(file, next(iter(layout.fields[text]))):
        if record.value is None:
            continue
        if isinstance(record.value, Fault):
            if isinstance(record.value.cause, CorpusFormatError):
                raise record.value.cause
            raise _malformed(file, record.line, record.value.what) from record.value.cause
        if not isinstance(record.value, dict):
            raise _malformed(file, record.line, " is no JSON object")
        _choose(record.value, file, record.line, text, layout)
        yield record.value, f"{file.name}:{record.name}", record.line


def _rows(file: File, text: str, layout: Layout) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield each row of a table, its name in the file, and the header's line."""
    from kerasgen.corpora import REGISTRY

    delimiter = "\t" if has_suffix(file.path, (".tsv",)) else ","
    first = next(read_lines(file.path), None)
    header = next(csv.reader([decode_line(first, file)], delimiter=delimiter), []) if first is not None else []
    column = _choose(dict.fromkeys(header), file, 1, text, layout)
    reader: Any = REGISTRY.get("csv")
    for document in reader(path=file.path, field=column, delimiter=delimiter).documents(tally := CorpusTally()):
        yield {column: document.text, **document.metadata}, document.id, 1
    for _ in range(tally.read - tally.kept):
        yield {column: ""}, "", 1


def _choose(record: Mapping[str, Any], file: File, line: int, text: str, layout: Layout) -> str:
    """Return the field that holds the text.

    Raises:
        CorpusFormatError: none of those that may is there.
    """
    names = layout.fields[text]
    column = next((name for name in names if name in record), None)
    if column is None:
        raise _malformed(
            file,
            line,
            f" has no field for {layout.name}'s {text!r} ({', '.join(map(repr, names))}); it has "
            f"{', '.join(map(repr, record)) or 'none'}. Read it with 'jsonl:path=…,field=…' or 'csv:path=…,field=…'",
        )
    return column


def _malformed(file: File, line: int, what: str) -> CorpusFormatError:
    return CorpusFormatError(f"{str(file.path)!r}, line {line}{what}.", path=file.path, line=line)
