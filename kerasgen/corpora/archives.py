"""Reads the wanted files of an archive in one pass, and notices where it is cut or damaged."""

from __future__ import annotations

import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from kerasgen import limits
from kerasgen.corpora import decompression
from kerasgen.corpora.file_kinds import HEAD_BYTES, json_kind, kind_of
from kerasgen.errors import CorpusFormatError, CorpusUnavailableError, KerasgenError

_TEXT = bytes(range(32, 127)) + b"\t\n\r"
# What tarfile and zipfile make of bytes that are no archive: beside their own errors whatever Python's are.
_DAMAGE = (
    *decompression.DAMAGE,
    OSError,
    tarfile.TarError,
    zipfile.BadZipFile,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,  # of which RecursionError and NotImplementedError are two
    struct.error,
)
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LONGEST_EXTENSION_BYTES = 1 << 20
_ZIP_END = b"PK\x05\x06"


def members(path: str | Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the regular files that are wanted, in the archive's own order.

    The archive is a zip file or a tar file, bare or compressed with gzip, bzip2, xz or (if `zstandard` is installed)
    zstd. Nothing is written to disk and links are not followed. A compressed archive is read to its last byte, so that
    its checksums count: what was yielded is sound only if nothing is raised after it. (A bare tar file has checksums of
    names, and none of contents.)

    Args:
        path: the archive.
        wanted: is asked with each member's name, folders in it separated by `/`.

    Raises:
        CorpusFormatError: the file is no archive, it is cut or damaged, or it holds more than `kerasgen.limits` allow;
            `.byte` says how far it could be read. Members before that place have been yielded by then.
        CorpusUnavailableError: it can't be opened, or is no regular file.
        MissingDependencyError: a zstd archive, and no `zstandard`.
    """
    path = Path(path)
    try:
        kind = limits.kind_of_irregular(path)
        if kind is not None:
            raise CorpusUnavailableError(f"{str(path)!r} is {kind}, where an archive was expected.", path=path)
        stream = path.open("rb")
    except OSError as cause:
        raise CorpusUnavailableError(f"{str(path)!r} can't be read: {cause.strerror or cause}.", path=path) from cause
    with stream:
        try:
            if zipfile.is_zipfile(stream):
                yield from _zip_members(stream, wanted, path)
            else:
                yield from _tar_members(stream, wanted, path)
        except KerasgenError:
            raise
        except _DAMAGE as cause:
            byte = min(stream.tell(), path.stat().st_size)  # a search may have gone beyond the end
            stream.seek(0)
            head = stream.read(HEAD_BYTES)
            raise CorpusFormatError(
                f"{path} can't be read as a zip or tar archive beyond its byte {byte}: "
                f"{str(cause) or type(cause).__name__}. {_remedy(head)}",
                path=path,
                byte=byte,
            ) from cause


@contextmanager
def spooled(
    path: Path, wanted: Callable[[str], bool], on_damage: Callable[[CorpusFormatError], None] | None = None
) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Yield the names of the wanted members of an archive, and a function that reads a member by its name.

    An archive has an order of its own and going back in it is slow, so they are copied to one temporary file.

    Args:
        path: the path of the archive.
        wanted: says of a name whether it is wanted.
        on_damage: called with the error if the archive is cut or damaged but some members came before that place;
            without it the error is raised.

    Raises:
        CorpusFormatError: the archive is cut or damaged.
    """
    places: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryFile(prefix="kerasgen-") as spool:
        try:
            for name, content in members(path, wanted):
                places[name] = (spool.tell(), len(content))
                spool.write(content)
        except CorpusFormatError as cause:
            if on_damage is None or not places:
                raise
            on_damage(cause)

        def read(name: str) -> bytes:
            offset, size = places[name]
            spool.seek(offset)
            return spool.read(size)

        yield list(places), read


def _remedy(head: bytes) -> str:
    kind = kind_of(head)
    if kind is None:
        kind = json_kind(head) or ("plain text" if head and not any(head[:64].translate(None, _TEXT)) else None)
    archive = (
        kind is None
        or any(head.startswith(magic) for magic in decompression.COMPRESSIONS.values())
        or "archive" in kind
    )
    if archive:
        return "It may be cut: fetch it again."
    return f"It is no archive but {kind}. Pass a folder, a zip or tar archive, or a .json file by that name."


def _zip_members(stream: IO[bytes], wanted: Callable[[str], bool], path: Path) -> Iterator[tuple[str, bytes]]:
    allowed = limits.Limits.current()
    declared = _declared_members(stream)
    _check_count(declared, allowed, path)
    size_bytes, total = path.stat().st_size, 0
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        if declared < 0xFFFF and declared != len(entries):
            raise zipfile.BadZipFile(f"it says that it holds {declared} files, and {len(entries)} are listed")
        _check_count(len(entries), allowed, path)
        for member in entries:
            is_wanted = not member.is_dir() and wanted(member.filename)
            if is_wanted:
                _check_size(member.file_size, member.filename, allowed, path)
                total += member.file_size
                if total > max(allowed.expansion_floor_bytes, allowed.expansion * size_bytes):
                    raise CorpusFormatError(
                        f"{str(path)!r} holds {total:,} bytes and more in {size_bytes:,}, as no text does. "
                        f"{limits.advice('expansion', allowed.expansion)}",
                        path=path,
                    )
            try:
                # Opened though it is not wanted: its name stands in two places, and a name that was damaged in one of
                # them would be passed over.
                with archive.open(member) as file:
                    content = file.read() if is_wanted else b""
            except (RuntimeError, NotImplementedError) as cause:  # a password, a compression that Python lacks
                if is_wanted:
                    raise zipfile.BadZipFile(str(cause)) from cause
                continue
            if is_wanted:
                yield member.filename, content


def _declared_members(stream: IO[bytes]) -> int:
    """Return the number of members that a zip file declares; 65,535 means that many or more."""
    stream.seek(0, io.SEEK_END)
    stream.seek(max(0, stream.tell() - (1 << 16) - 22))
    tail = stream.read()
    place = tail.rfind(_ZIP_END)
    return cast(int, struct.unpack_from("<H", tail, place + 10)[0])


def _tar_members(stream: IO[bytes], wanted: Callable[[str], bool], path: Path) -> Iterator[tuple[str, bytes]]:
    allowed = limits.Limits.current()
    stream.seek(0)
    head = stream.read(8)
    stream.seek(0)
    compression = next((name for name, magic in decompression.COMPRESSIONS.items() if head.startswith(magic)), None)
    chunks = None if compression is None else decompression.stream(stream, compression, path)
    plain = None if chunks is None else cast("IO[bytes]", _Chunks(chunks))
    # "r|": the decompressed bytes come once, from the first to the last.
    with tarfile.open(fileobj=plain or stream, mode="r:" if plain is None else "r|", tarinfo=_StrictMember) as archive:
        count = 0
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
            count += 1
            _check_count(count, allowed, path)
            if not member.isreg() or not wanted(member.name):
                continue
            _check_size(member.size, member.name, allowed, path)
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content.read()
        for _ in chunks or ():  # what follows the last member: its checksum is there
            pass


def _check_count(count: int, allowed: limits.Limits, path: Path) -> None:
    if count > allowed.members:
        raise CorpusFormatError(
            f"{str(path)!r} holds {count:,} files or more. {limits.advice('members', allowed.members)}", path=path
        )


def _check_size(size_bytes: int, name: str, allowed: limits.Limits, path: Path) -> None:
    if size_bytes < 0:
        raise tarfile.ReadError(f"{name!r} has a negative size")
    if size_bytes > allowed.document_bytes:
        raise CorpusFormatError(
            f"{name!r} in {str(path)!r} says that it holds {size_bytes:,} bytes. "
            f"{limits.advice('document_bytes', allowed.document_bytes)}",
            path=path,
        )


class _StrictMember(tarfile.TarInfo):
    """A member whose damaged header is an error: tarfile takes it for the end of the archive, unless it's the first."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictMember:
        header = super().frombuf(buf, encoding, errors)
        # Long names and the like are read whole before anyone is asked.
        if header.size < 0 or (header.type in _EXTENSIONS and header.size > _LONGEST_EXTENSION_BYTES):
            raise tarfile.InvalidHeaderError(f"{header.size} bytes of name")  # type: ignore[attr-defined]
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictMember:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as cause:
            if type(cause).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError(f"no valid member header ({cause})") from cause


class _Chunks:
    """Pieces of bytes behind the interface of a file that is only read forward."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._has_ended = False

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        if not data and self._has_ended:  # tarfile would go on asking, as often as a header says
            raise EOFError("it ends inside a file")
        self._has_ended = not data
        return data
