"""Decompresses a file to its last byte: the checksums at its end count, and its size is limited.

Python's own `gzip`, `bz2` and `lzma` files pass over what follows the first stream if it is no sound second one, and
zstandard's takes a cut file for a whole one. Here a file is streams from its first byte to its last, with nothing but
zeros between them, or it is damaged.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from kerasgen import limits
from kerasgen.errors import CorpusFormatError, MissingDependencyError

COMPRESSIONS = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd"}
"""The suffixes of what can be decompressed, and how each begins."""

DAMAGE = (EOFError, zlib.error, lzma.LZMAError)
"""What `stream` raises for bytes that are not what they should be."""

CHUNK_BYTES = 1 << 16
# A frame of zstd can expand to 10,000 times its size: small input pieces keep the output pieces small.
_ZSTD_CHUNK_BYTES = 1 << 12
_XZ_MEMORY_BYTES = 1 << 30  # xz's largest preset takes 65 MB; a header can ask for 4 GB


class _Decoder(Protocol):
    """One stream's decompressor, as Python's `bz2` and `lzma` have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of the other decompressors."""

    needs_input = True

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        text = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(text) < max_length
        return text


class _Bzip2:
    """bz2's decompressor, whose error for bad data is OSError, which a disk raises too."""

    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        try:
            return self._inner.decompress(data, max_length)
        except OSError as cause:
            raise zlib.error(str(cause)) from cause


class _Zstandard:
    needs_input = True

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as cause:
            raise MissingDependencyError(
                "Zstandard data need the package zstandard. Install it with: pip install 'kerasgen[zstd]'",
                package="zstandard",
                extra="zstd",
            ) from cause
        # Not zstandard's stream_reader: it takes a file that was cut short for a whole one.
        self._inner: Any = zstandard.ZstdDecompressor().decompressobj()
        self._error = zstandard.ZstdError

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        try:
            return bytes(self._inner.decompress(data))
        except self._error as cause:
            raise zlib.error(str(cause)) from cause


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    ".gz": _Gzip,
    ".bz2": _Bzip2,
    ".xz": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES),
    ".zst": _Zstandard,
}


def stream(file: IO[bytes], suffix: str, path: Path) -> Iterator[bytes]:
    """Yield the decompressed content of a file in pieces, up to the end that its own bytes mark.

    Args:
        file: open at its beginning.
        suffix: one of `COMPRESSIONS`.
        path: for errors.

    Raises:
        CorpusFormatError: it holds more than the limits allow.
        MissingDependencyError: Zstandard, and no package for it.
        EOFError, lzma.LZMAError, zlib.error: it is cut or damaged.
    """
    allowed = limits.Limits.current()
    new, read_bytes = _DECODERS[suffix], _ZSTD_CHUNK_BYTES if suffix == ".zst" else CHUNK_BYTES
    decoder: _Decoder | None = None
    data, read, written, is_first = b"", 0, 0, True
    while True:
        if not data and (decoder is None or decoder.needs_input):
            data = file.read(read_bytes)
            read += len(data)
            if not data:
                break
        if decoder is None:
            data = data if is_first else data.lstrip(b"\0")
            if not data:
                continue
            decoder, is_first = new(), False
        text = decoder.decompress(data, CHUNK_BYTES)
        data = b""
        if text:
            written += len(text)
            _check(written, read, allowed, path)
            yield text
        if decoder.eof:
            data, decoder = decoder.unused_data, None
    if decoder is not None or is_first:
        raise EOFError("the last stream is not complete" if read else "the file has no bytes")


def _check(written: int, read: int, allowed: limits.Limits, path: Path) -> None:
    if written > allowed.decompressed_bytes:
        raise CorpusFormatError(
            f"{str(path)!r} holds more than {allowed.decompressed_bytes:,} bytes when it is decompressed. "
            f"{limits.advice('decompressed_bytes', allowed.decompressed_bytes)}",
            path=path,
        )
    if written > allowed.expansion_floor_bytes and written > allowed.expansion * read:
        raise CorpusFormatError(
            f"{str(path)!r} holds {written:,} bytes in its first {read:,}, more than {allowed.expansion} times as "
            f"many, as no text does. {limits.advice('expansion', allowed.expansion)}",
            path=path,
        )
