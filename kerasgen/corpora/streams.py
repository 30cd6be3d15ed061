"""Reads files a little at a time, compressed or not: their bytes, and their lines."""

from __future__ import annotations

import codecs
import functools
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from kerasgen import limits
from kerasgen.corpora import decompression
from kerasgen.corpora.file_kinds import HEAD_BYTES, kind_of, likely_encoding
from kerasgen.corpora.paths import COMPRESSIONS, File, check_regular
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError

OnError: TypeAlias = Literal["raise", "skip"]

CHUNK_BYTES = decompression.CHUNK_BYTES
_BOM = codecs.BOM_UTF8
# Which suffix the compressed files have that `kind_of` names.
_ALSO_CALLED = {"a gzip file": "gz", "a bzip2 file": "bz2", "an xz file": "xz", "a Zstandard file": "zst"}
_VERIFIED_BYTES = 32 << 20  # about a second of decompression
_verified: set[tuple[str, int, int, int]] = set()
_LINE_FEED = re.compile(rb"\n")
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Line:
    r"""One line of a file.

    Args:
        raw: its bytes with the line end, if it has one, as "\n".
        number: from 1.
        byte: offset of its first byte in the file (as decompressed), from 0.
    """

    raw: bytes
    number: int
    byte: int


def check_path(path: str | os.PathLike[str]) -> str:
    """Return the path as text.

    Raises:
        CorpusArgumentError: it is empty or no path.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise CorpusArgumentError(
            f"path must name a file, a folder or a glob such as 'data/*.txt'. Received: {path!r}."
        )
    return text


def check_on_error(on_error: str) -> None:
    """Raise CorpusArgumentError unless `on_error` is "raise" or "skip"."""
    if on_error not in ("raise", "skip"):
        raise CorpusArgumentError(f"on_error must be 'raise' or 'skip'. Received: {on_error!r}.")


def check_encoding(encoding: str) -> None:
    """Raise CorpusArgumentError unless it is a text encoding that Python knows."""
    try:
        # Encoding something tells a text encoding from Python's others ("hex", "zip").
        "\n".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, TypeError, ValueError) as cause:
        raise CorpusArgumentError(
            f"encoding must be a text encoding that Python knows, such as 'utf-8' or 'gb18030'. Received: {encoding!r}."
        ) from cause


def check_name(value: object, argument: str) -> None:
    """Raise CorpusArgumentError unless `value`, the name of a field or column, is text that is not empty."""
    if not isinstance(value, str) or not value:
        raise CorpusArgumentError(f"{argument} must be the name of a field. Received: {value!r}.")


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the file's bytes in pieces, decompressed by its suffix: .gz, .bz2, .xz or .zst.

    Raises:
        CorpusFormatError: the compressed data are damaged or cut short, says after how many bytes; or they hold more
            than `kerasgen.limits` allow.
        CorpusUnavailableError: the file can't be opened or read, or is a pipe or a device.
        MissingDependencyError: a .zst file, and the package zstandard is not installed.
    """
    suffix = path.suffix.lower()
    size_bytes = 0
    check_regular(path)
    try:
        with path.open("rb") as file:
            if suffix in COMPRESSIONS:
                chunks = decompression.stream(file, suffix, path)
            else:
                chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
            for chunk in chunks:
                yield chunk
                size_bytes += len(chunk)
    except decompression.DAMAGE as cause:
        raise _damaged(path, suffix, size_bytes, cause) from cause
    except OSError as cause:
        raise CorpusUnavailableError(
            f"{str(path)!r} can't be read: {cause.strerror or cause}.", path=path, byte=size_bytes or None
        ) from cause


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, decompressed as `read_chunks` does, at most `HEAD_BYTES`.

    Raises:
        As `read_chunks`.
    """
    head = b""
    for chunk in read_chunks(path):
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head[:HEAD_BYTES]


def verify(path: Path) -> None:
    """Read a compressed file of up to 32 MB to its end, once in a process, before any of it is used.

    A checksum stands behind what it is of: a corpus of which the first documents alone are drawn would never meet it.
    Larger files are checked where they are read to their end.

    Raises:
        CorpusFormatError, CorpusUnavailableError, MissingDependencyError: as `read_chunks`.
    """
    check_regular(path)
    status = path.stat()
    identity = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    if path.suffix.lower() not in COMPRESSIONS or status.st_size > _VERIFIED_BYTES or identity in _verified:
        return
    for _ in read_chunks(path):
        pass
    _verified.add(identity)


def read_lines(path: Path, encoding: str = "utf-8", *, keep_cr: bool = False) -> Iterator[Line]:
    r"""Yield the file's lines, ended by "\n", "\r\n" or "\r", without a UTF-8 byte order mark.

    The bytes of a line are in `encoding` where that is an extension of ASCII, so that a line that is not in it spoils
    no other; of another encoding (UTF-16, …) they are UTF-8, and `Line.byte` counts those.

    Args:
        path: the path of the file.
        encoding: the encoding of its text.
        keep_cr: give a line that "\r" alone ends with that end, and not with "\n".

    Raises:
        CorpusFormatError: as `read_chunks`; a line is longer than `kerasgen.limits` allow; or the file is not in the
            encoding, if that is no extension of ASCII.
        CorpusUnavailableError: the file can't be opened or read.
    """
    limit = limits.Limits.current().line_bytes
    chunks = read_chunks(path)
    if not extends_ascii(encoding):
        chunks = _transcoded(chunks, path, encoding)
    pending: list[bytes] = []
    number, byte, size = 1, 0, 0
    for chunk in _without_cut_ends(chunks):
        start = 0
        # Nearly all files have one kind of end: searching for that alone is much faster.
        ends = _LINE_END.finditer(chunk) if b"\r" in chunk else _LINE_FEED.finditer(chunk)
        for end in ends:
            pending.append(chunk[start : end.start()])
            raw = b"".join(pending)
            pending.clear()
            if len(raw) > limit:
                raise _too_long(path, number, byte, limit)
            yield _line(raw, b"\r" if keep_cr and end[0] == b"\r" else b"\n", number, byte)
            number += 1
            byte += len(raw) + len(end[0])
            start, size = end.end(), 0
        if start < len(chunk):
            pending.append(chunk[start:])
            size += len(chunk) - start
            if size > limit:
                raise _too_long(path, number, byte, limit)
    if pending:
        yield _line(b"".join(pending), b"", number, byte)


def read_whole(path: Path) -> bytes:
    """Return all bytes that `read_chunks` yields.

    Raises:
        CorpusFormatError: as `read_chunks`, or there are more than `Limits.document_bytes`.
        CorpusUnavailableError: the file can't be opened or read.
    """
    limit, size_bytes, chunks = limits.Limits.current().document_bytes, 0, []
    for chunk in read_chunks(path):
        size_bytes += len(chunk)
        if size_bytes > limit:
            raise too_large(path, "the file")
        chunks.append(chunk)
    return b"".join(chunks)


def too_large(path: Path, noun: str, line: int | None = None) -> CorpusFormatError:
    """Return the error for a document of more than `Limits.document_bytes`."""
    limit = limits.Limits.current().document_bytes
    where = "" if line is None else f", line {line}"
    return CorpusFormatError(
        f"{str(path)!r}{where}: {noun} has more than {limit:,} bytes. {limits.advice('document_bytes', limit)}",
        path=path,
        line=line,
    )


def decode_line(line: Line, file: File, encoding: str | None = None) -> str:
    r"""Return the text of a line that `read_lines` gave, with its "\n" if it has one.

    Args:
        line: the line.
        file: which holds it.
        encoding: of the file; None for UTF-8 where the corpus has no setting for it.

    Raises:
        CorpusFormatError: it is not in the encoding; says the byte.
    """
    is_setting = encoding is not None
    encoding = encoding if encoding is not None and extends_ascii(encoding) else "utf-8"
    try:
        return line.raw.decode(encoding)
    except UnicodeDecodeError as cause:
        byte = line.byte + cause.start
        raise not_encoded(file.path, encoding, byte, cause, line=line.number, is_setting=is_setting) from cause


def not_encoded(
    path: Path,
    encoding: str,
    byte: int,
    cause: UnicodeDecodeError,
    *,
    line: int | None = None,
    is_setting: bool = True,
) -> CorpusFormatError:
    """Return the error for bytes that are no text in an encoding.

    Args:
        path: the path of the file.
        encoding: which they are not in.
        byte: where in the file.
        cause: what decoding raised.
        line: where in the file, if it is known.
        is_setting: whether the corpus can be told another encoding.
    """
    likely = likely_encoding(cause.object)
    if likely == encoding:
        likely = None
    looks = "" if likely is None else f" It looks like {likely}"
    if not is_setting:
        do = (
            f"{looks}. Convert it to UTF-8, or pass on_error='skip'."
            if looks
            else (" Convert it to UTF-8, or pass on_error='skip'.")
        )
    elif likely is not None:
        do = f"{looks}: pass encoding={likely!r}."
    else:
        do = " Pass the encoding it is in as encoding=…, convert it, or pass on_error='skip'."
    where = f"byte {byte}" if line is None else f"line {line}, byte {byte}"
    bad = cause.object[cause.start : max(cause.end, cause.start + 1)].hex(" ")
    return CorpusFormatError(
        f"{str(path)!r} is not {encoding} at {where}: {bad} ({cause.reason}).{do}",
        path=path,
        line=line,
        byte=byte,
    )


@functools.cache
def extends_ascii(encoding: str) -> bool:
    """Whether an ASCII byte means its ASCII character in this encoding, so that lines can be told apart undecoded."""
    ascii_bytes = bytes(range(128))
    try:
        return ascii_bytes.decode("ascii").encode(encoding) == ascii_bytes
    except UnicodeError:
        return False


def _line(raw: bytes, end: bytes, number: int, byte: int) -> Line:
    if number == 1 and raw.startswith(_BOM):
        raw = raw.removeprefix(_BOM)
        byte += len(_BOM)
    return Line(raw + end, number, byte)


def _without_cut_ends(chunks: Iterator[bytes]) -> Iterator[bytes]:
    r"""Yield the same bytes so that no piece ends between "\r" and "\n"."""
    carriage_return = b""
    for chunk in chunks:
        whole = carriage_return + chunk
        carriage_return = b"\r" if whole.endswith(b"\r") else b""
        yield whole[:-1] if carriage_return else whole
    if carriage_return:
        yield carriage_return


def _too_long(path: Path, number: int, byte: int, limit: int) -> CorpusFormatError:
    return CorpusFormatError(
        f"{str(path)!r}, line {number} has more than {limit:,} bytes. {limits.advice('line_bytes', limit)}",
        path=path,
        line=number,
        byte=byte,
    )


def _transcoded(chunks: Iterator[bytes], path: Path, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    byte = 0
    for chunk in itertools.chain(chunks, [b""]):
        pending_bytes = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as cause:
            raise not_encoded(path, encoding, byte - pending_bytes + cause.start, cause) from cause
        except UnicodeError as cause:  # such as UTF-16 without its byte order mark
            raise CorpusFormatError(f"{str(path)!r} is not {encoding}: {cause}.", path=path, byte=byte) from cause
        byte += len(chunk)
        yield text.encode("utf-8", "surrogatepass")


def _damaged(path: Path, suffix: str, size_bytes: int, cause: Exception) -> CorpusFormatError:
    problem = "is cut short" if isinstance(cause, EOFError) else f"is not a sound {suffix} file"
    if size_bytes == 0:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        kind = kind_of(head)
        if kind is None and head and not isinstance(cause, EOFError):
            kind = "not compressed, or in another way"
        if kind is not None and suffix.lstrip(".") not in _ALSO_CALLED.get(kind, ""):
            problem += f" (it is {kind})"
    return CorpusFormatError(
        f"{str(path)!r} {problem} after {size_bytes} bytes of content ({cause}). Copy or download it again, or pass "
        "on_error='skip' to read what comes before.",
        path=path,
        byte=size_bytes,
    )
