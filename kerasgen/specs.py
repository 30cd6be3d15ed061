"""Settings as text and text as settings: `"top_k:k=40,temperature=0.8"` and `TopK(k=40, temperature=0.8)`.

A spec is a frozen dataclass. This module turns the text form, and the dictionaries of a saved manifest, into the
constructor's call and back, by the constructor's own annotations; it never guesses a type.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from kerasgen.errors import ArgumentError

T = TypeVar("T")


def near(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words that come close to `word`, the closest first."""
    return difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)


def split_text(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the raw arguments of `"name"` or `"name:key=value,…"`.

    A value that holds a comma or a quote is written in double quotes, doubled inside, as in CSV:
    `text:"path=a,b.txt",encoding=utf-8`.

    Raises:
        ArgumentError: the text is empty, an argument has no `=`, a key is given twice, or a quote is not closed.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not name:
        raise ArgumentError(f"A name is needed before any ':'. Received: {text!r}.")
    arguments: dict[str, str] = {}
    if not colon:
        return name, arguments
    if not rest.strip():
        raise ArgumentError(f"{text!r} ends after its ':'. Write {name!r} alone, or '{name}:key=value'.")
    try:
        parts = next(csv.reader([rest], skipinitialspace=True, strict=True))
    except csv.Error as cause:
        raise ArgumentError(f"The quotes in {text!r} can't be read ({cause}). Double a quote inside quotes.") from cause
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ArgumentError(
                f"Arguments are written key=value, separated by commas. Received: {part!r} in {text!r}."
            )
        if key in arguments:
            raise ArgumentError(f"The argument {key!r} is given twice in {text!r}.")
        arguments[key] = value.strip()
    return name, arguments


def fields(kind: type[Any]) -> dict[str, Any]:
    """Return the constructor's arguments of a spec class with their resolved annotations, in order."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def build(
    kind: type[T],
    arguments: Mapping[str, Any],
    *,
    name: str,
    error: type[ArgumentError] = ArgumentError,
) -> T:
    """Return `kind(**arguments)`, text values read by the annotations.

    Args:
        kind: a frozen dataclass.
        arguments: by name; values that are text are read as the annotated type.
        name: how the person called the thing, for messages.
        error: what to raise.

    Raises:
        ArgumentError: (or `error`) an argument is unknown, missing, or can't be read.
    """
    known = fields(kind)
    values: dict[str, Any] = {}
    for key, value in arguments.items():
        if key not in known:
            close = near(key, known)
            hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
            raise error(f"{name!r} has no argument {key!r}.{hint} It takes: {', '.join(known) or 'none'}.")
        values[key] = read(value, known[key], where=f"{name}:{key}", error=error)
    required = [
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [key for key in required if key not in values]
    if missing:
        raise error(f"{name!r} needs {', '.join(map(repr, missing))}. Write '{name}:{missing[0]}=…'.")
    return kind(**values)


def read(value: Any, annotation: Any, *, where: str, error: type[ArgumentError] = ArgumentError) -> Any:
    """Return `value` as the annotated type; text is parsed, anything else passes to the constructor's own check.

    Args:
        value: text, or a value out of JSON.
        annotation: int, float, bool, str, Path, None, a Literal, a tuple of these, or a union of them.
        where: how to name the argument in a message.
        error: what to raise.
    """
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str):
        return value
    options = _options(annotation)
    for option in options:
        try:
            return _parse(value, option)
        except ValueError:
            continue
    wanted = " or ".join(_say(option) for option in options)
    raise error(f"{where} takes {wanted}. Received: {value!r}.")


def _options(annotation: Any) -> list[Any]:
    """The alternatives of a union, text last: `"5"` for `int | str` is the number."""
    origin = typing.get_origin(annotation)
    options = list(typing.get_args(annotation)) if origin in (Union, types.UnionType) else [annotation]
    return sorted(options, key=lambda option: option in (str, Path, Any))


def _parse(text: str, annotation: Any) -> Any:
    origin = typing.get_origin(annotation)
    if annotation is bool:
        lowered = text.lower()
        if lowered in ("true", "yes", "1"):
            return True
        if lowered in ("false", "no", "0"):
            return False
        raise ValueError(text)
    if annotation in (None, type(None)):
        if text.lower() == "none":
            return None
        raise ValueError(text)
    if annotation in (int, float):
        return annotation(text)
    if annotation is Path:
        return Path(text)
    if origin is Literal:
        for choice in typing.get_args(annotation):
            if text == str(choice):
                return choice
        raise ValueError(text)
    if origin in (tuple, Sequence):
        member = typing.get_args(annotation)[0]
        return tuple(_parse(part, member) for part in text.split("|"))
    if annotation in (str, Any):
        return text
    raise ValueError(text)


def _say(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    if annotation in (None, type(None)):
        return "none"
    if origin in (tuple, Sequence):
        return f"a list of {_say(typing.get_args(annotation)[0])} separated by '|'"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return words.get(annotation, str(annotation))


def to_arguments(spec: Any) -> dict[str, Any]:
    """Return the arguments of a spec that differ from their defaults, as JSON can hold them."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        if not field.init:
            continue
        value = getattr(spec, field.name)
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value == default:
            continue
        values[field.name] = _jsonable(value)
    return values


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_jsonable(item) for item in value]
    return value
