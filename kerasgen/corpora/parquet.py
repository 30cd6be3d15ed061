"""Reads documents from Parquet files, a batch of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kerasgen.corpora.base import Document
from kerasgen.corpora.file_corpus import Dropped, FileCorpus
from kerasgen.corpora.paths import File, find_files
from kerasgen.corpora.streams import OnError, check_on_error, check_path
from kerasgen.corpora.tables import Columns, TableRowError
from kerasgen.errors import CorpusFormatError, MissingDependencyError

_ROWS = 256  # that are held at a time
_MARK = b"PAR1"


@dataclass(frozen=True)
class Parquet(FileCorpus):
    r"""Parquet files: each row is a document, and one of its columns is the text.

    The row's other columns become the document's metadata. A blank or null text is dropped and counted as "empty". A
    text may be stored as bytes, which must be UTF-8. Rows are read a row group's batch at a time. It needs
    `pip install 'kerasgen[parquet]'`.

    Args:
        path: a file, a folder (its .parquet files, in folders below it too) or a glob.
        field: the name of the column that holds the text, or a list of texts, which become its lines.
        id_field: the name of the column that holds the document's id; without it the id is the file's name and the
            row's number, from 1.
        on_error: "raise" an error at a row that can't be used, or "skip" and count it.
        prompt: in place of `field`, the column that holds a prompt, which is read and not learned; see `Jsonl`.
        response: the column of what is learned after the prompt.
        separator: what stands between both, a line end by default.
        chosen: in place of `response`, the column of the better answer of a pair.
        rejected: the column of the worse answer.
        messages: the column of conversations: lists of structs with a `role` and a `content`.

    Raises:
        CorpusArgumentError: a setting is wrong.
    """

    path: str | os.PathLike[str]
    field: str = "text"
    id_field: str | None = None
    on_error: OnError = "raise"
    prompt: str | None = None
    response: str | None = None
    separator: str = "\n"
    chosen: str | None = None
    rejected: str | None = None
    messages: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", check_path(self.path))
        self._columns  # noqa: B018  (what is wrong is told now)
        check_on_error(self.on_error)

    @cached_property
    def _columns(self) -> Columns:
        return Columns.of(self)

    def check(self) -> None:
        """Look for the files and the package, and read none."""
        _parquet()
        super().check()

    def _files(self) -> list[File]:
        return find_files(os.fspath(self.path), (".parquet", ".parq"))

    def _records(self, file: File) -> Iterator[Document | Dropped]:
        pyarrow, parquet = _parquet()
        _check_mark(file.path)
        try:
            with parquet.ParquetFile(file.path) as opened:
                missing = self._columns.missing(opened.schema_arrow.names)
                if missing is not None:
                    # No row of the file can be read, so it counts once.
                    what = f"{str(file.path)!r}: {missing}. Name another column, or pass on_error='skip'."
                    yield Dropped("no such column", CorpusFormatError(what, path=file.path))
                    return
                number = 0
                for batch in opened.iter_batches(batch_size=_ROWS):
                    for row in _rows(batch):
                        number += 1
                        yield self._document(row, file, number)
        except (pyarrow.ArrowException, OSError) as cause:
            raise CorpusFormatError(
                f"{str(file.path)!r} can't be read as Parquet: {str(cause)!s:.200}. Fetch or write it anew.",
                path=file.path,
            ) from cause

    def _document(self, row: dict[str, Any], file: File, number: int) -> Document | Dropped:
        try:
            made = self._columns.document(row, id=f"{file.name}:{number}")
        except TableRowError as fault:
            error = CorpusFormatError(
                f"{str(file.path)!r}, row {number}: {fault.what}. Mend the file, or pass on_error='skip' to count and "
                "leave out what can't be read.",
                path=file.path,
            )
            error.__cause__ = fault
            return Dropped(fault.reason, error)
        return Dropped(made) if isinstance(made, str) else made


class _Unreadable:
    """A value that Python can't hold, such as a date in the year 300,000, or bytes in a column of text.

    Args:
        why: what Python says.
    """

    def __init__(self, why: str) -> None:
        self._why = why

    def __repr__(self) -> str:
        return f"unreadable ({self._why})"


def _rows(batch: Any) -> list[dict[str, Any]]:
    """Return the rows of a batch; one value that can't be read takes no other with it."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError):
        columns = {
            name: [_value(each) for each in batch.column(place)] for place, name in enumerate(batch.schema.names)
        }
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return _Unreadable(str(error)[:60])


def _check_mark(path: Path) -> None:
    """Raise unless a file begins and ends as Parquet does, before all of a large one is looked at."""
    with path.open("rb") as file:
        begin = file.read(4)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 4, 0))
        end = file.read(4)
    if begin != _MARK or end != _MARK or size < 12:
        problem = "begins as Parquet does and doesn't end so: it is cut off" if begin == _MARK else "is no Parquet file"
        raise CorpusFormatError(f"{str(path)!r} {problem}. Fetch or write it anew.", path=path)


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as cause:
        raise MissingDependencyError(
            "Parquet files are read by PyArrow, which can't be imported. Install it: pip install 'kerasgen[parquet]'.",
            package="pyarrow",
            extra="parquet",
        ) from cause
    return pyarrow, parquet
