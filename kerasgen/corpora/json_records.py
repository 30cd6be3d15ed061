"""Reads the records of a JSON file one at a time: its lines, the items of an array, or the one list in an object."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kerasgen import limits
from kerasgen.corpora.paths import File
from kerasgen.corpora.streams import (
    CHUNK_BYTES,
    Line,
    decode_line,
    head_of,
    not_encoded,
    read_chunks,
    read_lines,
    too_large,
)
from kerasgen.errors import CorpusFormatError

# What an error at the end of what was read so far may be: a number, a literal or an escape that goes on.
_CUT_CHARACTERS = 12


class Record(NamedTuple):
    """One value of a file.

    Args:
        value: as JSON has it, or the fault of a line that has none.
        line: where it begins, from 1.
        name: tells it from the file's others: its line, or its place in the array after `#`.
    """

    value: Any
    line: int
    name: str


class Fault(NamedTuple):
    """The reason why a line is no record.

    Args:
        reason: to count it under.
        what: to say in a message after the place.
        cause: the exception.
    """

    reason: str
    what: str
    cause: Exception


def read_records(file: File, field: str) -> Iterator[Record]:
    """Yield the records of a file in any of the three layouts; a blank line's is None.

    A file that begins with a bracket is an array, unless its first line is a whole one and others follow. An object
    over several lines, or alone in its file without the field, stands for the one list that it holds.

    Args:
        file: to read.
        field: the field whose presence makes an object a record itself.

    Raises:
        CorpusFormatError: an array or such an object is not JSON, or not UTF-8; says the line. What is wrong with one
            line of several is yielded as a `Fault`.
    """
    lines = read_lines(file.path)
    try:
        first = next((line for line in lines if line.raw.strip()), None)
    except CorpusFormatError:
        if not head_of(file.path).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            raise
        yield from _items(file.path)  # in one line that is longer than a line may be: its items may be short
        return
    if first is None:
        return
    second = next((line for line in lines if line.raw.strip()), None)
    begin = first.raw.lstrip()[:1]
    alone = second is None
    parsed = _parsed(first, file)
    whole = not isinstance(parsed, Fault)
    if begin == b"[" and (alone or not whole):
        yield from _items(file.path)
    elif begin == b"{" and not whole and second is not None and second.raw.lstrip()[:1] != b"{":
        yield from _in_object(_whole(file.path), 1, file, field)
    elif alone and isinstance(parsed, dict) and field not in parsed:
        yield from _in_object(parsed, first.number, file, field)
    else:
        for line in read_lines(file.path):
            yield Record(_parsed(line, file) if line.raw.strip() else None, line.number, str(line.number))


def _parsed(line: Line, file: File) -> Any:
    try:
        return json.loads(decode_line(line, file).removesuffix("\n"))  # else a fault at its end is one on a second line
    except CorpusFormatError as cause:
        return Fault("not utf-8", "", cause)
    except json.JSONDecodeError as cause:
        return Fault("not JSON", f", column {cause.colno} is not JSON: {cause.msg}", cause)
    except (ValueError, RecursionError) as cause:  # a number too long for Python to read, lists too deep
        return Fault("not JSON", f" is not JSON: {cause}", cause)


def _in_object(value: Any, line: int, file: File, field: str) -> Iterator[Record]:
    """Yield the records of the one list in an object, or the object as a record."""
    lists = [member for member in value.values() if isinstance(member, list)] if isinstance(value, dict) else []
    if not isinstance(value, dict) or field in value or len(lists) != 1 or not lists[0]:
        yield Record(value, line, str(line))
        return
    for index, item in enumerate(lists[0]):
        yield Record(item, line, f"#{index}")


def _whole(path: Path) -> Any:
    text = ""
    for piece in _texts(path):
        text += piece
        if len(text) > limits.Limits.current().document_bytes:
            raise too_large(path, "an object", 1)
    try:
        return json.loads(text)
    except json.JSONDecodeError as cause:
        raise _malformed(path, cause.lineno, f", column {cause.colno} is not JSON: {cause.msg}") from cause
    except (ValueError, RecursionError) as cause:
        raise _malformed(path, 1, f" is not JSON: {cause}") from cause


def _items(path: Path) -> Iterator[Record]:
    """Yield the items of an array; only the current item and what was read beyond it are in memory."""
    source = _Source(path)
    source.take("[")
    index = 0
    while not source.follows("]"):
        if index:
            source.take(",")
        line, value = source.value()
        yield Record(value, line, f"#{index}")
        index += 1
    source.take("]")
    source.finish()


class _Source:
    """The text of a file behind a read position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces = _texts(path)
        self._text = ""
        self._place = 0
        self._line = 1
        self._decoder = json.JSONDecoder()
        self._limit = limits.Limits.current().line_bytes

    def follows(self, sign: str) -> bool:
        self._skip_space()
        return self._text.startswith(sign, self._place)

    def take(self, sign: str) -> None:
        if not self.follows(sign):
            character = self._text[self._place : self._place + 1]
            raise _malformed(
                self._path, self._line, f" has {character!r} where {sign!r} must stand" if character else " is cut"
            )
        self._place += 1

    def value(self) -> tuple[int, Any]:
        """Return the next value and the line where it begins."""
        self._skip_space()
        self._forget()
        line = self._line
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as cause:
                goes_on = cause.pos >= len(self._text) - _CUT_CHARACTERS or cause.msg.startswith("Unterminated string")
                if not goes_on or not self._read():
                    where = line + self._text.count("\n", 0, cause.pos)
                    raise _malformed(self._path, where, f" is not JSON: {cause.msg}") from cause
            except (ValueError, RecursionError) as cause:
                raise _malformed(self._path, line, f" is not JSON: {cause}") from cause
            else:
                # A number may go on beyond what was read.
                if end < len(self._text) or not self._read():
                    self._line += self._text.count("\n", self._place, end)
                    self._place = end
                    return line, value

    def finish(self) -> None:
        self._skip_space()
        if self._place < len(self._text):
            raise _malformed(self._path, self._line, " goes on after the array's end")

    def _skip_space(self) -> None:
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\r\n":
                self._line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text) or not self._read():
                return

    def _forget(self) -> None:
        self._text = self._text[self._place :]
        self._place = 0

    def _read(self) -> bool:
        """Double the text in memory, so that an item is parsed a few times at most; return False at the file's end."""
        if len(self._text) - self._place > self._limit:
            raise CorpusFormatError(
                f"{str(self._path)!r}, line {self._line} begins a value of more than {self._limit:,} characters. Write "
                f"the records as JSON lines, or split the file. {limits.advice('line_bytes', self._limit)}",
                path=self._path,
                line=self._line,
            )
        pieces, read, enough = [], 0, max(len(self._text) - self._place, CHUNK_BYTES)
        for piece in self._pieces:
            pieces.append(piece)
            read += len(piece)
            if read >= enough:
                break
        self._text += "".join(pieces)
        return read > 0


def _texts(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    byte = 0
    first = True
    for chunk in itertools.chain(read_chunks(path), [b""]):
        pending_bytes = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as cause:
            raise not_encoded(path, "utf-8", byte - pending_bytes + cause.start, cause, is_setting=False) from cause
        byte += len(chunk)
        if text:
            yield text.removeprefix("\ufeff") if first else text
            first = False


def _malformed(path: Path, line: int, problem: str) -> CorpusFormatError:
    return CorpusFormatError(
        f"{str(path)!r}, line {line}{problem}. Mend the file, or pass on_error='skip' to read what comes before.",
        path=path,
        line=line,
    )
