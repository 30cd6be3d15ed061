"""Reads the values of a recipe as the types that settings are annotated with."""

from __future__ import annotations

import os
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, Literal

from kerasgen import bounds, keywords, specs
from kerasgen.errors import ArgumentError

_LISTS = (tuple, list, Sequence, Collection, Iterable)


class FromText(str):
    """Text of the command line or of a spec, which stands for a value of any type, as in `"lora:rank=8"`."""

    __slots__ = ()


def typed(value: Any, annotation: Any) -> Any:
    """Return a value of TOML as the annotated type. The text `"none"` is None where that is allowed.

    Raises:
        ValueError: it is of another type; the message says what is taken.
    """
    if isinstance(value, FromText):
        try:
            read = specs.read(str(value), annotation, where="it")
        except ArgumentError as cause:
            raise ValueError(_wrong(value, annotation)) from cause
        if not bounds.accepts(read, annotation):
            raise ValueError(_wrong(value, annotation))
        return read
    for option in _options(annotation):
        try:
            return _as(value, option)
        except ValueError:
            continue
    raise ValueError(_wrong(value, annotation))


def wanted(annotation: Any) -> str:
    """Return what an annotation takes, in words."""
    return " or ".join(dict.fromkeys(map(_say, _options(annotation))))


def plain(value: Any) -> Any:
    """Return a value as TOML can hold it: the text "none" stands for None."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value) if isinstance(value, str) else value


def is_list(annotation: Any) -> bool:
    """Whether the annotation is that of a list of some kind."""
    return typing.get_origin(annotation) in _LISTS


def _options(annotation: Any) -> list[Any]:
    """Return the alternatives of a union; a path that may be text is text."""
    options = specs.options(annotation)
    is_text = any(bounds.plain(option) is str for option in options)
    return [option for option in options if not (_is_path(option) and is_text)]


def _wrong(value: Any, annotation: Any) -> str:
    hint = ""
    if isinstance(value, str):
        choices = [choice for option in specs.alternatives(annotation) for choice in _choices(option)]
        hint = keywords.meant(str(value), choices)
    return f"takes {wanted(annotation)}. Received: {_shown(value)}.{hint}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (date, time)):
        return value.isoformat()
    return f"{str(value) if isinstance(value, FromText) else value!r:.80}"


def _choices(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _is_path(annotation: Any) -> bool:
    return annotation is Path or typing.get_origin(annotation) is os.PathLike


def _as(value: Any, annotation: Any) -> Any:
    if bounds.bounded(annotation) is not None:
        taken = _as(value, bounds.plain(annotation))
        if bounds.accepts(taken, annotation):
            return taken
        raise ValueError(value)
    if annotation is Any:
        return value
    if annotation in (None, type(None)):
        if value == "none":
            return None
    elif annotation is bool or annotation is str:
        if isinstance(value, annotation):
            return value
    elif annotation is int or annotation is float:
        if isinstance(value, (int, float) if annotation is float else int) and not isinstance(value, bool):
            return value
    elif _is_path(annotation):
        if isinstance(value, str):
            return Path(value)
    elif typing.get_origin(annotation) is Literal:
        for choice in typing.get_args(annotation):
            if type(choice) is type(value) and choice == value:
                return choice
    elif is_list(annotation):
        if isinstance(value, list):
            members = typing.get_args(annotation)
            fixed = typing.get_origin(annotation) is tuple and members[-1:] != (Ellipsis,)
            if not fixed:
                return tuple(typed(item, members[0] if members else Any) for item in value)
            if len(members) == len(value):
                return tuple(map(typed, value, members))
    elif (annotation is dict or typing.get_origin(annotation) in (dict, Mapping)) and isinstance(value, Mapping):
        return dict(value)
    raise ValueError(value)


def _say(annotation: Any) -> str:
    found = bounds.bounded(annotation)
    if found is not None:
        return found[1].say(found[0])
    if is_list(annotation):
        members = typing.get_args(annotation)
        if typing.get_origin(annotation) is tuple and members[-1:] != (Ellipsis,):
            return f"a list of {' and '.join(map(wanted, members))}"
        return f"a list of {wanted(members[0]) if members else 'anything'}"
    if annotation in (None, type(None)):
        return '"none"'
    if annotation is dict or typing.get_origin(annotation) in (dict, Mapping):
        return "a table"
    if _is_path(annotation):
        return "a path"
    return "anything" if annotation is Any else specs.say(annotation)
