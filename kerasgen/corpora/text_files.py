"""Reads documents from files of plain text: whole files, lines or paragraphs."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from kerasgen import keywords, limits
from kerasgen.corpora.base import Document
from kerasgen.corpora.file_corpus import Dropped, FileCorpus
from kerasgen.corpora.file_faults import another_kind
from kerasgen.corpora.file_kinds import BINARY, advice, is_encoded_text, json_kind, kind_of
from kerasgen.corpora.paths import File, find_files, has_suffix
from kerasgen.corpora.streams import (
    Line,
    OnError,
    check_encoding,
    check_on_error,
    check_path,
    decode_line,
    extends_ascii,
    head_of,
    read_lines,
    too_large,
)
from kerasgen.errors import CorpusArgumentError, CorpusFormatError

SPLITS = ("file", "line", "paragraph")

_LINE_BYTES = 150  # what Python takes for a line, beside its bytes


@dataclass(frozen=True)
class Text(FileCorpus):
    r"""Plain text: each file, line or paragraph is a document.

    Line ends become "\n". A document of nothing but white space is dropped and counted as "empty"; the blank lines
    between paragraphs are no documents.

    Args:
        path: a file, a folder (its .txt and .text files, in folders below it too) or a glob; files may be compressed
            (.gz, .bz2, .xz, .zst).
        split: what is a document: the whole "file", each "line", or each "paragraph" (lines up to a blank one).
        encoding: the encoding of the files, by Python's name for it.
        on_error: "raise" an error at what can't be read, or "skip" and count it.
        check_kind: whether a file of JSON, CSV or no text at all is an error; its message says what the file is.

    Raises:
        CorpusArgumentError: a setting is wrong.
    """

    path: str | os.PathLike[str]
    split: Literal["file", "line", "paragraph"] = "file"
    encoding: str = "utf-8"
    on_error: OnError = "raise"
    check_kind: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", check_path(self.path))
        if self.split not in SPLITS:
            hint = keywords.meant(self.split, SPLITS)
            raise CorpusArgumentError(f"split must be one of {', '.join(SPLITS)}. Received: {self.split!r}.{hint}")
        check_encoding(self.encoding)
        check_on_error(self.on_error)
        if not isinstance(self.check_kind, bool):
            raise CorpusArgumentError(f"check_kind must be True or False. Received: {self.check_kind!r}.")

    def _files(self) -> list[File]:
        return find_files(os.fspath(self.path), (".txt", ".text"))

    def _records(self, file: File) -> Iterator[Document | Dropped]:
        wrong = self._wrong_kind(file) if self.check_kind else None
        if wrong is not None:
            do = advice(wrong)
            if "JSON" in wrong or "CSV" in wrong:
                do += " To read it as it stands, pass check_kind=False."
            yield another_kind(file, "plain text", wrong, do)
            return
        if self.split == "file":
            yield self._document(read_lines(file.path, self.encoding), file, id=file.name)
            return
        paragraph: list[Line] = []
        limit, size_bytes = limits.Limits.current().document_bytes, 0
        for line in read_lines(file.path, self.encoding):
            if self.split == "line":
                yield self._document([line], file, id=f"{file.name}:{line.number}")
            elif not self._is_blank(line, file):
                paragraph.append(line)
                # An object for each line: many short ones take more than their bytes.
                size_bytes += len(line.raw) + _LINE_BYTES
                if size_bytes > limit:
                    raise too_large(file.path, "a paragraph", paragraph[0].number)
            elif paragraph:
                yield self._document(paragraph, file, id=f"{file.name}:{paragraph[0].number}")
                paragraph, size_bytes = [], 0
        if paragraph:
            yield self._document(paragraph, file, id=f"{file.name}:{paragraph[0].number}")

    def _wrong_kind(self, file: File) -> str | None:
        head = head_of(file.path)
        wrong = kind_of(head)
        if not extends_ascii(self.encoding):
            return None if wrong is None or is_encoded_text(wrong) or wrong == BINARY else wrong
        if wrong is None and has_suffix(file.path, (".csv", ".tsv")):
            return "a CSV file, by its name"
        return json_kind(head) if wrong is None else wrong

    def _is_blank(self, line: Line, file: File) -> bool:
        try:
            # Decoded: the ideographic space is white space too.
            return not decode_line(line, file, self.encoding).strip()
        except CorpusFormatError:
            return False

    def _document(self, lines: Iterable[Line], file: File, *, id: str) -> Document | Dropped:  # noqa: A002 - its name
        limit, size_bytes, parts = limits.Limits.current().document_bytes, 0, io.StringIO()
        for line in lines:
            size_bytes += len(line.raw)
            if size_bytes > limit:
                raise too_large(file.path, "a document")
            try:
                parts.write(decode_line(line, file, self.encoding))
            except CorpusFormatError as error:
                return Dropped(f"not {self.encoding}", error)
        text = parts.getvalue()
        if not text.strip():
            return Dropped("empty")
        return Document(text=text if self.split == "file" else text.removesuffix("\n"), id=id)
