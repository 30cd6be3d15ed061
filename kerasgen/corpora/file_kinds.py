"""Recognizes a file's kind by its first bytes, for messages: a person reads "a PDF", not "not UTF-8"."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Container
from typing import Final

HEAD_BYTES: Final = 1 << 16

_MAGIC: Final = (
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"PK\x03\x04", "a zip archive (or a file of that form, such as .docx, .xlsx, .epub or .npz)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"%PDF-", "a PDF"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF model"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\x00", "a Windows program"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 file"),
    (b"fLaC", "a FLAC file"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, and the file itself was not fetched"),
)
_ENCODED: Final = (
    (codecs.BOM_UTF32_LE, "text in UTF-32 (pass encoding='utf-32')"),
    (codecs.BOM_UTF32_BE, "text in UTF-32 (pass encoding='utf-32')"),
    (codecs.BOM_UTF16_LE, "text in UTF-16 (pass encoding='utf-16')"),
    (codecs.BOM_UTF16_BE, "text in UTF-16 (pass encoding='utf-16')"),
)
# Of text in these encodings without a byte order mark, the places in two or four bytes that hold most of its zeros.
_UNMARKED: Final = (
    ("utf-32-le", 4, (1, 2, 3)),
    ("utf-32-be", 4, (0, 1, 2)),
    ("utf-16-le", 2, (1,)),
    ("utf-16-be", 2, (0,)),
)
_LEAST_ZEROS: Final = 0.3
_LEAST_UNMARKED_BYTES: Final = 16
_TAR_MAGIC_BYTE: Final = 257
# Bytes that never occur in text: a file with many of them is no text. A short file may be anything.
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\x0b\x0c\r\x1b"))
_MOST_CONTROLS: Final = 0.05
_LEAST_BYTES: Final = 256
BINARY: Final = "a binary file"
# Encodings of Chinese, each with the first bytes of punctuation and of the characters that it counts as frequent.
_CHINESE: Final = (("gb18030", (0xA1, 0xA3, *range(0xB0, 0xD8))), ("big5", (*range(0xA1, 0xC7),)))
_MOST_ARE_FREQUENT: Final = 0.85
_KEY: Final = re.compile(r'\{\s*"(?:[^"\\\n]|\\.)*"\s*:')


def kind_of(head: bytes) -> str | None:
    """Return the kind of file that begins with these bytes, as a noun with its article; None if it may be plain text.

    JSON is not looked for; see `json_kind`.

    Args:
        head: the first bytes, some thousands of them.
    """
    controls = len(head) - len(head.translate(None, _CONTROLS))
    for magic, kind in (*_MAGIC, *_ENCODED):
        # A text may begin with a format's letters ("ID3", "GIF8"), but holds none of those bytes then.
        if head.startswith(magic) and (controls or not magic.isalnum()):
            return kind
    if head[_TAR_MAGIC_BYTE : _TAR_MAGIC_BYTE + 5] == b"ustar":
        return "a tar archive"
    if head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"WEBP", b"AVI "):
        return f"a {head[8:12].decode().strip()} file"
    if head[4:8] == b"ftyp":
        return "an MP4 file, or one of its form"
    encoding = _unmarked_encoding(head)
    if encoding is not None:
        return _in_encoding(encoding)
    if len(head) >= _LEAST_BYTES and controls > _MOST_CONTROLS * len(head):
        return BINARY
    return None


def is_encoded_text(kind: str) -> bool:
    """Return whether a kind that `kind_of` returned is text in another encoding."""
    unmarked = (_in_encoding(encoding) for encoding, _, _ in _UNMARKED)
    return kind in {*(encoded for _, encoded in _ENCODED), *unmarked}


def _in_encoding(encoding: str) -> str:
    """Return the name for text in UTF-16 or UTF-32 without a byte order mark."""
    return f"text in {encoding[:6].upper()} (pass encoding={encoding!r})"


def _unmarked_encoding(head: bytes) -> str | None:
    """Return the encoding of text whose zeros lie where UTF-16 and UTF-32 have the high bytes of ASCII, or None."""
    for encoding, size, places in _UNMARKED:
        whole = head[: len(head) // size * size]
        zeros = [whole[place::size].count(0) for place in range(size)]
        there = [zeros[place] for place in places]
        is_enough = len(whole) >= _LEAST_UNMARKED_BYTES and min(there) >= _LEAST_ZEROS * len(whole) / size
        if is_enough and sum(zeros) == sum(there):
            return encoding
    return None


def json_kind(head: bytes) -> str | None:
    """Return `"a JSON array"`, `"a JSON object"` or `"JSON lines"` if a file begins so, else None.

    A text may begin with a bracket (`[Verse 1]`) or a brace: what counts is that a value is complete, or that it is a
    key of an object that follows.

    Args:
        head: the first bytes, in UTF-8 or ASCII.
    """
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    if not text.startswith(("{", "[")):
        return None
    noun = "a JSON object" if text.startswith("{") else "a JSON array"
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:  # cut by the head's end, or no JSON
        return noun if _begins_json(text) else None
    except (ValueError, RecursionError):  # numbers too long, lists too deep: no text either
        return noun
    if not any(isinstance(item, (str, dict, list)) for item in value):  # `{}`, or `[1]` alone: a text may be that
        return None
    rest = text[end:].lstrip()
    if not rest:
        return noun
    return "JSON lines" if "\n" in text[end:] and rest.startswith(text[0]) else None


def _begins_json(text: str) -> bool:
    """Whether a bracket is followed by a whole element and a comma, or by an object with a key."""
    inside = text[1:].lstrip() if text.startswith("[") else text
    if inside.startswith("{"):
        return _KEY.match(inside) is not None
    if not inside.startswith(('"', "[")):
        return False
    try:
        end = json.JSONDecoder().raw_decode(inside)[1]
    except (ValueError, RecursionError):
        return False
    return inside[end:].lstrip().startswith(",")


def advice(kind: str) -> str:
    """Return advice for a file of an unexpected kind: which corpus reads it, or how to unpack it."""
    if "JSON" in kind:
        return "Read it with 'jsonl:path=…,field=…', which reads arrays and objects too."
    if "gzip" in kind or "bzip2" in kind or "xz" in kind or "Zstandard" in kind:
        suffix = {"gzip": ".gz", "bzip2": ".bz2", "an xz": ".xz", "Zstandard": ".zst"}
        ending = next(ending for word, ending in suffix.items() if word in kind)
        return f"If it is compressed text, let its name end in {ending}; a tar archive must be unpacked."
    if "archive" in kind:
        return "Unpack it, and pass the folder."
    if "CSV" in kind:
        return "Read it with 'csv:path=…,field=…'."
    if "Parquet" in kind or "Arrow" in kind:
        return "Convert it first, for example with pandas: read_parquet(…).to_json(…, orient='records', lines=True)."
    if "PDF" in kind or "document" in kind:
        return "Save it as plain text first."
    if "Git LFS" in kind:
        return "Run 'git lfs pull' where it came from."
    return "Pass a file of text."


def likely_encoding(data: bytes) -> str | None:
    """Return the encoding that a text which is not UTF-8 is likely in; None if its bytes don't tell.

    Args:
        data: some of its bytes, whole lines at best.
    """
    shares = {encoding: _frequent_share(data, encoding, frequent) for encoding, frequent in _CHINESE}
    best = max(shares, key=lambda encoding: shares[encoding])
    if shares[best] >= _MOST_ARE_FREQUENT:
        return best
    try:
        letters = [character for character in data.decode("cp1252") if not character.isascii()]
    except UnicodeDecodeError:
        return None
    return "cp1252" if letters and all(map(_is_western, letters)) else None


def _frequent_share(data: bytes, encoding: str, frequent: Container[int]) -> float:
    """Return the share of characters beyond ASCII that an encoding of Chinese counts among the frequent ones."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as cause:
        if cause.end < len(data) or len(data) - cause.start > 3:  # not only the last character is cut off
            return 0.0
        text = data[: cause.start].decode(encoding)
    beyond = [character.encode(encoding) for character in text if not character.isascii()]
    return sum(len(own) == 2 and own[0] in frequent for own in beyond) / max(len(beyond), 1)


def _is_western(character: str) -> bool:
    return character in "‘’“”–—…€£°«»¿¡ß\u00a0" or "\u00c0" <= character <= "\u00ff"
