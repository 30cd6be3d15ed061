"""Parses and writes specs: `"top_k:k=40,temperature=0.8"` stands for `TopK(k=40, temperature=0.8)`.

A spec is a frozen dataclass. This module turns the text form, and the dictionaries of a saved manifest, into the
constructor's call and back, by the constructor's own annotations; it never guesses a type.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from kerasgen import bounds, deprecations, keywords
from kerasgen.errors import ArgumentError

T = TypeVar("T")

if not TYPE_CHECKING:
    __getattr__ = deprecations.moved(__name__, {"near": "kerasgen.keywords:near"})


def strings(values: Any) -> list[str] | None:
    """Return an iterable's strings as a list; None for a single string, a mapping, or anything else than strings."""
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        return None
    listed = list(values)
    return listed if all(isinstance(value, str) for value in listed) else None


def bounded_fields(kind: type[Any]) -> dict[str, Any]:
    """Return what `fields` returns, with the bounds that annotations say; see `kerasgen.bounds`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in fields(kind)}


def check_whole(
    name: str, value: Any, *, least: int, more: str = "", error: type[ArgumentError] = ArgumentError
) -> None:
    """Check an argument that is a whole number.

    Args:
        name: the name of the argument.
        value: the value of the argument.
        least: the least value allowed.
        more: what the message says besides, such as ", or None".
        error: what to raise.

    Raises:
        ArgumentError: (or `error`) it is no whole number, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise error(f"`{name}` must be a whole number of at least {least}{more}. Received: {value!r}.")


# One argument and the comma after it. Quoted as a whole, as in CSV; or the value alone; or bare, without its spaces.
_ARGUMENT = re.compile(
    r"""\s* (?: "(?P<whole>(?:[^"]|"")*)"
             | (?P<key>[^",=]*) = \s* "(?P<value>(?:[^"]|"")*)"
             | (?! " | [^",=]* = \s* " ) (?P<bare>[^,]*?)
        ) \s* (?P<end>,|\Z)""",
    re.VERBOSE,
)


def split_text(
    text: str,
    *,
    error: type[ArgumentError] = ArgumentError,
    key_of: Callable[[str], str | None] = lambda name: None,
) -> tuple[str, dict[str, str]]:
    """Return the name and the raw arguments of `"name"` or `"name:key=value,…"`.

    A value that holds a comma, or begins with a quote or a space, is written in double quotes, doubled inside; the
    quotes may stand around the whole argument, as in CSV: `text:path="a,b.txt"` or `text:"path=a,b.txt"`.

    Args:
        text: as above.
        error: what to raise.
        key_of: returns the argument that a name can't do without, for the error about a value without its key.

    Raises:
        ArgumentError: (or `error`) the text is empty, an argument has no `=`, a key is given twice, or a quote is not
            closed.
    """
    name, colon, raw = text.partition(":")
    name = name.strip()
    if not name:
        raise error(f"A name is needed before any ':'. Received: {text!r}.")
    arguments: dict[str, str] = {}
    if not colon:
        return name, arguments
    if not raw.strip():
        raise error(f"{text!r} ends after its ':'. Write {name!r} alone, or '{name}:key=value'.")
    position, more = 0, True
    while more:
        match = _ARGUMENT.match(raw, position)
        if match is None:
            raise error(
                f"The quotes in {text!r} can't be read from {raw[position:]!r} on. A quote must be closed, with a "
                "comma or the end after it; inside quotes, a quote is doubled."
            )
        position, more = match.end(), match["end"] == ","
        if match["value"] is not None:
            key, equals, value = match["key"], "=", match["value"].replace('""', '"')
        elif match["whole"] is not None:
            key, equals, value = match["whole"].replace('""', '"').partition("=")
        else:
            key, equals, value = match["bare"].partition("=")
            value = value.strip()
        key = key.strip()
        if not equals or not key:
            part = match[0].removesuffix(",").strip()
            missing = key_of(name) if part and not equals and not arguments else None
            write = f" Write {name + ':' + _quoted(missing, part.strip(chr(34)))!r}." if missing else ""
            raise error(f"Arguments are written key=value, separated by commas. Received: {part!r} in {text!r}.{write}")
        if key in arguments:
            raise error(f"The argument {key!r} is given twice in {text!r}.")
        arguments[key] = value
    return name, arguments


def fields(kind: type[Any]) -> dict[str, Any]:
    """Return the constructor's arguments of a spec class with their resolved annotations, in order.

    Raises:
        TypeError: `kind` is no dataclass.
        NameError: an annotation names what its module doesn't have when it runs.
    """
    hints = typing.get_type_hints(kind)
    return {f.name: _without_optional(hints[f.name]) for f in dataclasses.fields(kind) if f.init}


def _without_optional(hint: Any) -> Any:
    """Return a hint as people write it: `int | None`, and not `Optional[int]`, which is left where bounds were."""
    if typing.get_origin(hint) is not typing.Union:
        return hint
    return functools.reduce(operator.or_, typing.get_args(hint))


def needed(kind: type[Any]) -> list[str]:
    """Return the constructor's arguments of a spec class that have no default, in order."""
    return [
        f.name
        for f in dataclasses.fields(kind)
        if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]


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
    known = _check(kind, arguments, name=name, error=error)
    return kind(
        **{key: read(value, known[key], where=f"{name}:{key}", error=error) for key, value in arguments.items()}
    )


def restore(
    kind: type[T],
    arguments: Mapping[str, Any],
    *,
    name: str,
    error: type[ArgumentError] = ArgumentError,
) -> T:
    """Return `kind(**arguments)` from what `to_arguments` wrote; text stays text, even `"none"` or `"5"`.

    Args:
        kind: a frozen dataclass.
        arguments: by name, as JSON holds them.
        name: how the person called the thing, for messages.
        error: what to raise.

    Raises:
        ArgumentError: (or `error`) an argument is unknown or missing.
    """
    known = _check(kind, arguments, name=name, error=error)
    return kind(**{key: _from_json(value, known[key]) for key, value in arguments.items()})


def _check(kind: type[Any], arguments: Mapping[str, Any], *, name: str, error: type[ArgumentError]) -> dict[str, Any]:
    """Check that no argument is unknown or missing, and return the known ones."""
    known = fields(kind)
    for key in arguments:
        if key not in known:
            elsewhere = getattr(kind, "_elsewhere", None)
            placed = elsewhere({key: arguments[key]}) if elsewhere is not None else ""
            if placed:
                raise error(f"{name!r} has no argument {key!r}. {placed}")
            hint = keywords.did_you_mean(key, known)
            raise error(f"{name!r} has no argument {key!r}.{hint} It takes: {', '.join(known) or 'none'}.")
    missing = [name for name in needed(kind) if name not in arguments]
    if missing:
        raise error(f"{name!r} needs {' and '.join(map(repr, missing))}. Write '{name}:{missing[0]}=…'.")
    return known


def read(value: Any, annotation: Any, *, where: str, error: type[ArgumentError] = ArgumentError) -> Any:
    """Return `value` as the annotated type; text is parsed, anything else passes to the constructor's own check.

    Args:
        value: text, or a value out of JSON.
        annotation: int, float, bool, str, Path, None, a Literal, a tuple of these, or a union of them.
        where: how to name the argument in a message.
        error: what to raise.
    """
    if not isinstance(value, str):
        return _from_json(value, annotation)
    try:
        return _parse(value, annotation)
    except ValueError:
        wanted = " or ".join(say(option) for option in alternatives(annotation))
        hint = keywords.meant(value, _choices(annotation))
        raise error(f"{where} takes {wanted}. Received: {value!r}.{hint}") from None


def alternatives(annotation: Any) -> list[Any]:
    """Return the alternatives of a union, text last: `"5"` for `int | str` is the number."""
    return list(map(bounds.plain, options(annotation)))


def options(annotation: Any) -> list[Any]:
    """Return the alternatives of a union with their bounds, text last."""
    return sorted(bounds.options(annotation), key=lambda option: bounds.plain(option) in (str, Path, Any))


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _parse(text: str, annotation: Any) -> Any:
    """Parse the text as the annotated type; raise ValueError where it can't be."""
    annotation = bounds.plain(annotation)
    if _is_union(annotation):
        # "none" is no list of one text.
        for option in sorted(alternatives(annotation), key=lambda option: option is not type(None)):
            try:
                return _parse(text, option)
            except ValueError:
                continue
        raise ValueError(text)
    if annotation in (str, Any):
        return text
    if annotation is Path:
        return Path(text)
    origin = typing.get_origin(annotation)
    if origin in (tuple, Sequence):
        parts = text.split("|") if text else []
        return tuple(_parse(part, member) for part, member in zip(parts, _members(annotation, len(parts)), strict=True))
    if origin is Literal:
        for choice in typing.get_args(annotation):
            if isinstance(choice, str):
                if text == choice:
                    return choice
            elif _reads_as(text, choice):
                return choice
        raise ValueError(text)
    word = text.strip().lower()
    if annotation is bool and word in ("true", "yes", "1"):
        return True
    if annotation is bool and word in ("false", "no", "0"):
        return False
    if annotation in (None, type(None)) and word == "none":
        return None
    if annotation in (int, float):
        return annotation(text)
    raise ValueError(text)


def _reads_as(text: str, choice: Any) -> bool:
    try:
        return bool(_parse(text, type(choice)) == choice)
    except ValueError:
        return False


def _members(annotation: Any, count: int) -> tuple[Any, ...]:
    """The annotations of `count` members; that of `tuple[X, ...]` and `Sequence[X]` as often as there are members."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) is Sequence or members[1:] == (Ellipsis,):
        return (members[0],) * count
    return members


def _choices(annotation: Any) -> list[Any]:
    """Return the literals that the annotation allows."""
    literals = [literal for literal in alternatives(annotation) if typing.get_origin(literal) is Literal]
    return [choice for literal in literals for choice in typing.get_args(literal)]


def say(annotation: Any) -> str:
    """Return what an annotation takes, in words, as the text form of a spec is written."""
    annotation = bounds.plain(annotation)
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    if annotation in (None, type(None)):
        return "none"
    if origin is Sequence or (origin is tuple and typing.get_args(annotation)[1:] == (Ellipsis,)):
        return f"a list of {say(typing.get_args(annotation)[0])} separated by '|'"
    if origin is tuple:
        return " and ".join(map(say, typing.get_args(annotation))) + " separated by '|'"
    if _is_union(annotation):
        return " or ".join(map(say, alternatives(annotation)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return words.get(annotation, str(annotation))


def to_arguments(
    spec: Any,
    *,
    error: type[ArgumentError] = ArgumentError,
    convert: Callable[[Any], Any] = lambda value: value,
) -> dict[str, Any]:
    """Return the arguments of a spec that differ from their defaults, as JSON can hold them.

    Args:
        spec: a frozen dataclass.
        error: what to raise.
        convert: called for each value, also those in lists and mappings, before it is looked at.

    Raises:
        ArgumentError: (or `error`) a value is nothing that JSON can hold.
    """
    values: dict[str, Any] = {}
    for name, value in changed(spec).items():
        try:
            values[name] = _jsonable(value, convert)
        except TypeError as cause:
            raise error(
                f"{type(spec).__name__}({name}={value!r}) can't be saved: text, finite numbers, true, false, "
                "None and tuples of these can."
            ) from cause
    return values


def changed(spec: Any) -> dict[str, Any]:
    """Return the arguments of a spec that differ from their defaults, as it holds them."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        if not field.init:
            continue
        value = getattr(spec, field.name)
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value != default:
            values[field.name] = value
    return values


def to_text(name: str, spec: Any, *, error: type[ArgumentError] = ArgumentError) -> str:
    """Return `"name:key=value,…"` with the arguments that differ from their defaults.

    Raises:
        ArgumentError: (or `error`) a value has no text form: a "|" inside a list, the text "none" where None may be.
    """
    arguments = to_arguments(spec, error=error)
    text = name + ":" * bool(arguments) + ",".join(_quoted(key, _written(value)) for key, value in arguments.items())
    try:
        same = build(type(spec), split_text(text)[1], name=name, error=error) == spec
    except ArgumentError:
        same = False
    if not same:
        raise error(f"{spec!r} has no text form: {text!r} is read as something else.")
    return text


def _quoted(key: str, value: str) -> str:
    if value == value.strip() and not any(mark in value for mark in ',"'):
        return f"{key}={value}"
    doubled = value.replace('"', '""')
    return f'{key}="{doubled}"'


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(_written, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _jsonable(value: Any, convert: Callable[[Any], Any]) -> Any:
    value = convert(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value!r} is no number of JSON's")
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (tuple, list)):
        return [_jsonable(item, convert) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _jsonable(item, convert) for key, item in value.items()}
    return os.fspath(value)  # TypeError where it is no path either


def _from_json(value: Any, annotation: Any) -> Any:
    """Turn lists into tuples and text into paths where the annotation says so; leave the rest to the constructor."""
    options = alternatives(annotation)
    if isinstance(value, list):
        for option in options:
            if typing.get_origin(option) in (tuple, Sequence):
                members = _members(option, len(value))
                if len(members) == len(value):
                    return tuple(map(_from_json, value, members))
        return tuple(value)
    if isinstance(value, str) and Path in options and str not in options:
        return Path(value)
    return value
