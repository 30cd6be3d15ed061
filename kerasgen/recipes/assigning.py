"""Puts settings of the command line into a recipe, as `--set tuner.rank=16` writes them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from kerasgen import specs
from kerasgen.errors import ArgumentError
from kerasgen.recipes.layout import DEFAULT_TYPES, PARTS, TYPE
from kerasgen.recipes.lines import Key
from kerasgen.recipes.values import FromText


def parsed(assignments: Iterable[str]) -> dict[Key, Any]:
    """Return what each `KEY=VALUE` says, by its key: TOML's lists, tables and quoted texts, or text of any type.

    Raises:
        ArgumentError: one has no `=`, or a key comes twice.
    """
    settings: dict[Key, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        words = name.strip().replace("-", "_").split(".")
        if not equals or not all(words):
            raise ArgumentError(f"--set takes KEY=VALUE, such as tuner.rank=16 for a recipe. Received: {assignment!r}.")
        ((key, _),) = named({".".join(words): text}).items()
        if key in settings:
            raise ArgumentError(f"{'.'.join(words)!r} must be said once. --set has it twice.")
        settings[key] = _value(text)
    return settings


def _value(text: str) -> Any:
    """Return what is in quotes, brackets or braces as TOML reads it, and other text as it stands."""
    if text.lstrip()[:1] not in ('"', "'", "[", "{"):
        return FromText(text)
    try:
        content = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return FromText(text)
    value = content["value"]
    if len(content) > 1:  # a line end, and further settings behind it
        return FromText(text)
    return FromText(value) if isinstance(value, str) else value


def named(settings: Mapping[str, Any]) -> dict[Key, Any]:
    """Return settings by their keys: `"tuner.rank"` is `("tuner", "rank")`."""
    return {
        tuple(int(word) if word.isdecimal() else word for word in name.split(".")): value
        for name, value in settings.items()
    }


def assigned(content: Mapping[str, Any], settings: Mapping[Key, Any]) -> dict[str, Any]:
    """Return the content of a recipe with these settings in place of its own; the shortest keys are put in first.

    A part that is written as text, such as `tuner = "lora:rank=8"`, becomes a table, so that a setting of it can be
    replaced.

    Raises:
        ArgumentError: a key goes through what is neither a table nor an array, or there is no such table of an array.
    """
    whole: dict[str, Any] = _copied(content)
    for key, value in sorted(settings.items(), key=lambda pair: len(pair[0])):
        _assign(whole, key, value)
    return whole


def as_table(part: str, text: str) -> dict[str, Any]:
    """Return the table that stands for a part that is written as text.

    Args:
        part: `"corpus"`, `"model"`, `"tuner"` or `"sampler"`.
        text: such as `"lora:rank=8"`, or the address of a model.
    """
    registry = PARTS[part]
    if part == "model" and text.partition(":")[0] not in registry.names():
        return {TYPE: "hub", "preset": text}
    name, arguments = specs.split_text(text, error=registry.error)
    return {TYPE: name} | {key: FromText(value) for key, value in arguments.items()}


def _assign(whole: dict[str, Any], key: Key, value: Any) -> None:
    place: Any = whole
    for depth, word in enumerate(key[:-1]):
        if isinstance(place, list):
            place = _member(place, word, key)
            continue
        inner = place.get(word)
        if word == "constraint" and isinstance(inner, str):
            name, arguments = specs.split_text(inner)
            inner = {TYPE: name} | {key: FromText(value) for key, value in arguments.items()}
        elif depth == 0 and isinstance(word, str) and word in PARTS and not isinstance(inner, (dict, list)):
            default = DEFAULT_TYPES.get(word)
            inner = as_table(word, str(inner)) if inner is not None else {TYPE: default} if default else {}
        elif inner is None:
            inner = [] if key[depth + 1] == 0 else {}
        if not isinstance(inner, (dict, list)):
            raise ArgumentError(
                f"--set {'.'.join(map(str, key))} goes through {word!r}, which is no table. Received: {inner!r:.80}."
            )
        place[word] = inner
        place = inner
    if isinstance(place, list):
        _member(place, key[-1], key)
    place[key[-1]] = value


def _member(array: list[Any], word: str | int, key: Key) -> Any:
    """Return a member of an array; the one after the last, of tables, is made."""
    if word == len(array) and key[-1] != word and all(isinstance(member, dict) for member in array):
        array.append({})
    if not isinstance(word, int) or word >= len(array):
        raise ArgumentError(
            f"--set {'.'.join(map(str, key))} names {word!r} of an array that has {len(array)} members, counted from 0."
        )
    return array[word]


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
