"""Parses one row of CSV whose fields may be of any length.

Python's `csv` reads a field of up to 131,072 characters, and that limit can only be lifted for the whole process, for
every reader in every thread. So it is left alone, and the rare row that is longer is read here, by the same rules.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from io import StringIO

from kerasgen import limits

_QUOTE = '"'


def parse(lines: Iterable[str], delimiter: str, *, too_large: Callable[[], Exception]) -> list[str]:
    """Return the fields of the row that begins with the first line; no more lines are drawn than it has.

    Args:
        lines: the lines with their ends.
        delimiter: between two fields.
        too_large: makes the error for a row of more than `Limits.document_bytes`.

    Raises:
        csv.Error: a quote is not closed, or what follows one is no delimiter.
    """
    limit = limits.Limits.current().document_bytes
    row: list[str] = []
    quoted: StringIO | None = None  # the field that is open
    size = 0
    for line in lines:
        size += len(line)
        if size > limit:
            raise too_large()
        place = 0
        while True:
            if quoted is None:
                if not line.startswith(_QUOTE, place):
                    end = line.find(delimiter, place)
                    row.append(line[place:].rstrip("\r\n") if end < 0 else line[place:end])
                    if end < 0:
                        return row
                    place = end + 1
                    continue
                quoted, place = StringIO(), place + 1
            end = line.find(_QUOTE, place)
            if end < 0:
                quoted.write(line[place:])
                break  # the field goes on in the next line
            quoted.write(line[place:end])
            if line.startswith(_QUOTE, end + 1):
                quoted.write(_QUOTE)
                place = end + 2
                continue
            row.append(quoted.getvalue())
            quoted, place = None, end + 1
            if line.startswith(delimiter, place):
                place += 1
            elif not line[place:].strip("\r\n"):
                return row
            else:
                raise csv.Error(f"{delimiter!r} expected after {_QUOTE!r}")
    raise csv.Error("unexpected end of data")
