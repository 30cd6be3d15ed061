"""Paths to lines of bytes: which files a path means, and what is in them, compressed or not, a little at a time."""

from __future__ import annotations

import bz2
import codecs
import functools
import glob
import gzip
import itertools
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from kerasgen import locations
from kerasgen.corpora.kinds import HEAD_BYTES, kind_of
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError, MissingDependencyError

OnError: TypeAlias = Literal["raise", "skip"]

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
CHUNK_BYTES = 1 << 16
# A frame of zstd can hold 10,000 times its size: small pieces in keep the pieces out small.
_ZSTD_CHUNK_BYTES = 1 << 12
_BOM = codecs.BOM_UTF8
# Which suffix the compressed files have that `kind_of` names.
_ALSO_CALLED = {"a gzip file": "gz", "a bzip2 file": "bz2", "an xz file": "xz", "a Zstandard file": "zst"}


@dataclass(frozen=True)
class File:
    """One file of a corpus.

    Args:
        path: where it is.
        name: its path below the folder that was asked for, with forward slashes; the same on every machine.
    """

    path: Path
    name: str


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


def check_name(value: object, argument: str) -> None:
    """Raise CorpusArgumentError unless `value`, the name of a field or column, is text that is not empty."""
    if not isinstance(value, str) or not value:
        raise CorpusArgumentError(f"{argument} must be the name of a field. Received: {value!r}.")


def find_files(path: str, suffixes: tuple[str, ...]) -> list[File]:
    """Return the files that `path` means, in the order of their names.

    Args:
        path: a file; a folder, of which every file with one of the suffixes counts, in folders below it too, hidden
            ones (`.git`) left out; or a glob, whose matches count whatever their suffix. `~` is the home directory.
        suffixes: such as `(".txt",)`; a compression's suffix may follow.

    Raises:
        CorpusUnavailableError: there is no such file, or none in the folder.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        found = [file for file in _walk(root) if has_suffix(file.path, suffixes)]
        if not found:
            raise CorpusUnavailableError(
                f"The folder {path!r} holds no file that ends in {' or '.join(suffixes)} (or that and "
                f"{', '.join(COMPRESSIONS)}). For files of another name write a glob such as "
                f"'{root.as_posix()}/**/*.log'.",
                path=root,
            )
    elif root.exists():
        return [File(root, root.name)]
    elif glob.has_magic(str(root)):
        base = _fixed_part(root)
        found = [
            File(match, match.relative_to(base).as_posix())
            for match in map(Path, glob.iglob(str(root), recursive=True))  # noqa: PTH207 - takes absolute globs
            if match.is_file()
        ]
        if not found:
            raise CorpusUnavailableError(
                f"No file matches {path!r}. The current folder is {str(Path.cwd())!r}.", path=root
            )
    else:
        raise CorpusUnavailableError(
            f"There is no file or folder {path!r}.{locations.hint(root)} The current folder is {str(Path.cwd())!r}.",
            path=root,
        )
    return sorted(found, key=lambda file: file.name)


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the file's bytes in pieces, decompressed by its suffix: .gz, .bz2, .xz or .zst.

    Raises:
        CorpusFormatError: the compressed data are damaged or cut short; says after how many bytes.
        CorpusUnavailableError: the file can't be opened or read.
        MissingDependencyError: a .zst file, and the package zstandard is not installed.
    """
    suffix = path.suffix.lower()
    size_bytes = 0
    try:
        # A compressed file of no bytes is a cut one; gzip alone would take it for an empty text.
        if suffix in COMPRESSIONS and path.stat().st_size == 0:
            raise EOFError("the file has no bytes")
        for chunk in _decompressed(path, suffix):
            yield chunk
            size_bytes += len(chunk)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as cause:
        _damaged(path, suffix, size_bytes, cause)
    except OSError as cause:
        if suffix == ".bz2" and cause.errno is None:  # what bz2 raises for bad data is a bare OSError
            _damaged(path, suffix, size_bytes, cause)
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


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[Line]:
    r"""Yield the file's lines, ended by "\n" or "\r\n", without a UTF-8 byte order mark.

    The bytes of a line are in `encoding` where that is an extension of ASCII, so that a line that is not in it spoils
    no other; of another encoding (UTF-16, …) they are UTF-8, and `Line.byte` counts those.

    Raises:
        CorpusFormatError: as `read_chunks`, or the file is not in the encoding, if that is no extension of ASCII.
        CorpusUnavailableError: the file can't be opened or read.
    """
    chunks = read_chunks(path)
    if not extends_ascii(encoding):
        chunks = _transcoded(chunks, path, encoding)
    pending: list[bytes] = []
    number, byte = 1, 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            pending.append(part)
            raw = b"".join(pending)
            pending.clear()
            yield _line(raw, b"\n", number, byte)
            number += 1
            byte += len(raw) + 1
        if rest:
            pending.append(rest)
    if pending:
        yield _line(b"".join(pending), b"", number, byte)


def decode_line(line: Line, file: File, encoding: str = "utf-8") -> str:
    r"""Return the text of a line that `read_lines` gave, with its "\n" if it has one.

    Raises:
        CorpusFormatError: it is not in the encoding; says the byte.
    """
    encoding = encoding if extends_ascii(encoding) else "utf-8"
    try:
        return line.raw.decode(encoding)
    except UnicodeDecodeError as cause:
        raise not_encoded(file.path, encoding, line.byte + cause.start, cause, line=line.number) from cause


def not_encoded(
    path: Path, encoding: str, byte: int, cause: UnicodeDecodeError, *, line: int | None = None
) -> CorpusFormatError:
    """Return the error for bytes that are no text in an encoding."""
    where = f"byte {byte}" if line is None else f"line {line}, byte {byte}"
    bad = cause.object[cause.start : max(cause.end, cause.start + 1)].hex(" ")
    return CorpusFormatError(
        f"{str(path)!r} is not {encoding} at {where}: {bad} ({cause.reason}). Pass the encoding it is in, convert it, "
        "or pass on_error='skip'.",
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
    if end:
        raw = raw.removesuffix(b"\r")
    if number == 1 and raw.startswith(_BOM):
        raw = raw.removeprefix(_BOM)
        byte += len(_BOM)
    return Line(raw + end, number, byte)


def _transcoded(chunks: Iterator[bytes], path: Path, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    byte = 0
    for chunk in itertools.chain(chunks, [b""]):
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as cause:
            raise not_encoded(path, encoding, byte - held + cause.start, cause) from cause
        except UnicodeError as cause:  # such as UTF-16 without its byte order mark
            raise CorpusFormatError(f"{str(path)!r} is not {encoding}: {cause}.", path=path, byte=byte) from cause
        byte += len(chunk)
        yield text.encode("utf-8", "surrogatepass")


def _open_plain(path: Path) -> BufferedReader:
    return path.open("rb")


_OPEN: Mapping[str, Callable[[Path], BufferedReader | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


def _decompressed(path: Path, suffix: str) -> Iterator[bytes]:
    if suffix == ".zst":
        yield from _zstd_chunks(path)
        return
    with _OPEN.get(suffix, _open_plain)(path) as stream:
        # read1: one step of the decompressor, so that what came before a fault is handed on before it is met.
        while chunk := stream.read1(CHUNK_BYTES):
            yield chunk


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as cause:
        raise MissingDependencyError(
            f"{str(path)!r} is compressed with Zstandard. Install the package that reads it: "
            "pip install 'kerasgen[zstd]'.",
            package="zstandard",
            extra="zstd",
        ) from cause
    # Not zstandard's stream_reader: it takes a file that was cut short for a whole one.
    decompressor = None
    with path.open("rb") as stream:
        while data := stream.read(_ZSTD_CHUNK_BYTES):
            while data:
                if decompressor is None:
                    decompressor = zstandard.ZstdDecompressor().decompressobj()
                try:
                    text = decompressor.decompress(data)
                except zstandard.ZstdError as cause:
                    raise zlib.error(str(cause)) from cause
                if text:
                    yield text
                data = b""
                if decompressor.eof:
                    data, decompressor = decompressor.unused_data, None
    if decompressor is not None:
        raise EOFError("the last frame is not complete")


def _damaged(path: Path, suffix: str, size_bytes: int, cause: Exception) -> NoReturn:
    what = "is cut short" if isinstance(cause, EOFError) else f"is not a sound {suffix} file"
    if size_bytes == 0:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        found = kind_of(head)
        if found is None and head and not isinstance(cause, EOFError):
            found = "not compressed, or in another way"
        if found is not None and suffix.lstrip(".") not in _ALSO_CALLED.get(found, ""):
            what += f" (it is {found})"
    raise CorpusFormatError(
        f"{str(path)!r} {what} after {size_bytes} bytes of content ({cause}). Copy or download it again, or pass "
        "on_error='skip' to read what comes before.",
        path=path,
        byte=size_bytes,
    ) from cause


def _walk(root: Path) -> Iterator[File]:
    def refuse(cause: OSError) -> NoReturn:  # os.walk would pass over a folder it may not open
        raise CorpusUnavailableError(
            f"The folder {cause.filename!r} can't be read: {cause.strerror}.", path=cause.filename
        ) from cause

    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield File(path, path.relative_to(root).as_posix())


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file's name ends so, a compression's suffix left aside."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name.endswith(suffixes)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first pattern."""
    fixed: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)
