"""Finds the lines on which the settings of a TOML text stand, which `tomllib` does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Key = tuple[str | int, ...]
"""Where a setting stands: `("tuner", "rank")`, or `("exports", 0, "path")` in the first table of an array."""


def located(text: str) -> dict[Key, int]:
    """Return the 1-based line of each setting and of each table's header.

    Args:
        text: TOML that `tomllib` reads.
    """
    lines: dict[Key, int] = {}
    header: Key = ()
    tables: dict[Key, int] = {}  # how many tables an array has so far
    for number, statement, content in _statements(text):
        if statement.startswith("[["):
            header = _in_arrays(_path(content), tables)
            tables[header] = tables.get(header, 0) + 1
            lines.setdefault(header, number)
            header = (*header, tables[header] - 1)
            lines.setdefault(header, number)
        elif statement.startswith("["):
            header = _in_arrays(_path(content), tables)
            lines.setdefault(header, number)
        else:
            for key in _keys(content):
                lines.setdefault((*header, *key), number)
    return lines


def line_of(lines: dict[Key, int], key: Key) -> int | None:
    """Return the line of a setting, or of the nearest table around it; None if no line has either."""
    while key:
        if key in lines:
            return lines[key]
        key = key[:-1]
    return None


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield each header and assignment with its first line and its value: the fewest lines that are TOML by themselves.

    Each line is looked at once, and those of an array or a text over several lines once for each of them.
    """
    begun, statement = 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement and (not line.strip() or line.lstrip().startswith("#")):
            continue
        begun = begun if statement else number
        statement += line + "\n"
        try:
            content = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        yield begun, statement.lstrip(), content
        statement = ""


def _path(content: Any) -> Key:
    """Return the keys of a header, of which each holds but the next."""
    path: Key = ()
    while content:
        if isinstance(content, list):
            content = content[0]
            continue
        ((key, content),) = content.items()
        path = (*path, key)
    return path


def _in_arrays(path: Key, tables: dict[Key, int]) -> Key:
    """Return the path with the place of the last table of each array that it goes through."""
    whole: Key = ()
    for position, key in enumerate(path):
        whole = (*whole, key)
        if position < len(path) - 1 and whole in tables:
            whole = (*whole, tables[whole] - 1)
    return whole


def _keys(content: Any, above: Key = ()) -> Iterator[Key]:
    """Yield each key of tables and arrays in one another."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*above, key)
        yield from _keys(value, (*above, key))
