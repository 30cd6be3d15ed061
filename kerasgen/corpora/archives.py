"""An archive of files to the bytes of those that are wanted, in one pass, with a cut or damaged archive noticed."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from kerasgen.corpora.kinds import HEAD_BYTES, json_kind, kind_of
from kerasgen.errors import CorpusFormatError, MissingDependencyError

_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
_TEXT = bytes(range(32, 127)) + b"\t\n\r"
_COMPRESSIONS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x28\xb5\x2f\xfd", lambda stream: _zstandard(stream)),
)


def members(path: str | Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the regular files that are wanted, in the archive's own order.

    The archive is a zip file or a tar file, bare or compressed with gzip, bzip2, xz or (if `zstandard` is installed)
    zstd. Nothing is written to disk and links are not followed.

    Args:
        path: the archive.
        wanted: is asked with each member's name, folders in it separated by `/`.

    Raises:
        CorpusFormatError: the file is no archive, or it is cut or damaged; `.byte` says how far it could be read.
            Members before that place have been yielded by then.
        MissingDependencyError: a zstd archive, and no `zstandard`.
    """
    path = Path(path)
    with path.open("rb") as stream:
        try:
            if zipfile.is_zipfile(stream):
                yield from _zip_members(stream, wanted)
            else:
                yield from _tar_members(stream, wanted)
        except Exception as cause:
            if not isinstance(cause, _DAMAGE) and type(cause).__name__ != "ZstdError":
                raise
            byte = min(stream.tell(), path.stat().st_size)  # a search may have gone beyond the end
            stream.seek(0)
            head = stream.read(HEAD_BYTES)
            raise CorpusFormatError(
                f"{path} can't be read as a zip or tar archive beyond its byte {byte}: "
                f"{str(cause) or type(cause).__name__}. {_remedy(head)}",
                path=path,
                byte=byte,
            ) from cause


def _remedy(head: bytes) -> str:
    found = kind_of(head)
    if found is None:
        found = json_kind(head) or ("plain text" if head and not any(head[:64].translate(None, _TEXT)) else None)
    archive = found is None or any(head.startswith(magic) for magic, _ in _COMPRESSIONS) or "archive" in found
    if archive:
        return "It may be cut: fetch it again."
    return f"It is no archive but {found}. Pass a folder, a zip or tar archive, or a .json file by that name."


def _zip_members(stream: IO[bytes], wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.is_dir() or not wanted(member.filename):
                continue
            try:
                content = archive.read(member)
            except (RuntimeError, NotImplementedError) as cause:  # a password, a compression that Python lacks
                raise zipfile.BadZipFile(str(cause)) from cause
            yield member.filename, content


def _tar_members(stream: IO[bytes], wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    stream.seek(0)
    head = stream.read(8)
    stream.seek(0)
    with contextlib.ExitStack() as stack:
        plain: IO[bytes] = stream
        for magic, decompress in _COMPRESSIONS:
            if head.startswith(magic):
                plain = stack.enter_context(cast("IO[bytes]", decompress(stream)))
        archive = stack.enter_context(tarfile.open(fileobj=plain, mode="r:", tarinfo=_StrictMember))
        for member in archive:
            if not member.isreg() or not wanted(member.name):
                continue
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content.read()


class _StrictMember(tarfile.TarInfo):
    """A member whose damaged header is an error: tarfile takes it for the end of the archive, unless it's the first."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictMember:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as cause:
            if type(cause).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError(f"no valid member header ({cause})") from cause


def _zstandard(stream: IO[bytes]) -> Any:
    try:
        import zstandard
    except ImportError as cause:
        raise MissingDependencyError(
            "A zstd archive needs the package zstandard. Install it with: pip install 'kerasgen[zstd]'",
            package="zstandard",
            extra="zstd",
        ) from cause
    return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
