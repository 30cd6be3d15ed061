"""Bounds of settings, said once in a field's annotation: constructors check them, and JSON Schema shows them.

A class writes them so::

    @dataclass(frozen=True)
    class TopK(TokenSampler):
        k: PositiveInt = 5

`PositiveInt` is an int to a type checker. `check` raises where a value is out of bounds, and `schema` returns what JSON
Schema says of it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, cast

_LISTS = (tuple, list, Sequence, Collection, Iterable)


@dataclass(frozen=True, repr=False)
class Bounds:
    """What a number or a text must be, beside its type.

    Args:
        minimum: the least number allowed.
        maximum: the greatest number allowed.
        above: a number that must be exceeded.
        below: a number that must not be reached.
        pattern: a regular expression that the whole text matches; in what Python and JavaScript have in common.
        note: what a message says besides, in brackets.
        wanted: what a message says must be there, where the numbers don't say it well; it follows "must be".
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    pattern: str | None = None
    note: str = ""
    wanted: str = ""

    def __repr__(self) -> str:
        held = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return f"Bounds({', '.join(f'{name}={value!r}' for name, value in held.items() if value not in (None, ''))})"

    def allow(self, value: Any) -> bool:
        """Return whether a number or a text is within the bounds."""
        if isinstance(value, str):
            return self.pattern is None or re.fullmatch(self.pattern, value) is not None
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def schema(self) -> dict[str, Any]:
        """Return the keywords of JSON Schema that say the same."""
        keywords = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
            "pattern": None if self.pattern is None else f"^(?:{self.pattern})$",
        }
        return {name: value for name, value in keywords.items() if value is not None}

    def say(self, kind: Any) -> str:
        """Return what a value of a type must be, such as "a whole number of at least 1"."""
        noun = {int: "a whole number", float: "a finite number", str: "text"}[kind]
        limits = {"of at least": self.minimum, "above": self.above, "at most": self.maximum, "below": self.below}
        said = " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if limit is not None)
        words = self.wanted or f"{noun} {said}".rstrip()
        return f"{words} ({self.note})" if self.note else words


PositiveInt: TypeAlias = Annotated[int, Bounds(minimum=1)]
"""A whole number of at least 1."""
NonNegativeInt: TypeAlias = Annotated[int, Bounds(minimum=0)]
"""A whole number of at least 0."""
PositiveFloat: TypeAlias = Annotated[float, Bounds(above=0)]
"""A finite number above 0."""
NonNegativeFloat: TypeAlias = Annotated[float, Bounds(minimum=0)]
"""A finite number of at least 0."""
FiniteFloat: TypeAlias = Annotated[float, Bounds()]
"""A finite number."""
Share: TypeAlias = Annotated[float, Bounds(minimum=0, maximum=1)]
"""A number from 0 to 1."""
PositiveShare: TypeAlias = Annotated[float, Bounds(above=0, maximum=1)]
"""A number above 0 and at most 1."""
Seed: TypeAlias = Annotated[int, Bounds(minimum=0, maximum=2**64 - 1, wanted="a whole number from 0 to 2**64 - 1")]
"""A seed of random numbers."""
NonEmptyStr: TypeAlias = Annotated[str, Bounds(pattern=r"[\s\S]+", wanted="text that is not empty")]
"""Text that is not empty."""


def bounded(annotation: Any) -> tuple[Any, Bounds] | None:
    """Return the type and the bounds that `Annotated[type, Bounds(…)]` says, or None for another annotation."""
    if typing.get_origin(annotation) is not Annotated:
        return None
    kind, *metadata = typing.get_args(annotation)
    bounds = next((each for each in metadata if isinstance(each, Bounds)), None)
    return None if bounds is None else (kind, bounds)


def plain(annotation: Any) -> Any:
    """Return an annotation without what `Annotated` says besides the type."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


@functools.cache
def of(kind: type[Any]) -> Mapping[str, Any]:
    """Return the annotations of a dataclass's fields that have bounds, by name."""
    return {name: annotation for name, annotation in declared(cast(Any, kind)).items() if _has_bounds(annotation)}


@functools.cache
def declared(kind: type[Any]) -> Mapping[str, Any]:
    """Return the annotations of a dataclass's fields, by name, with their bounds; `Any` for one that can't be resolved.

    `typing.get_type_hints` gives up where one of them can't be.
    """
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        scope = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, annotation in inspect.get_annotations(base).items():
            if name not in names:
                continue
            if isinstance(annotation, str):
                try:
                    annotation = eval(annotation, dict(scope))  # as typing.get_type_hints does
                except Exception:  # of whatever kind; the registry tells a plugin's author
                    annotation = Any
            found[name] = annotation
    return found


def check(value: Any, fault: Callable[[str, Any, str], Exception]) -> None:
    """Check each field of a dataclass's value that has bounds.

    Args:
        value: the dataclass's instance.
        fault: returns what to raise, of a field's name, its value, and what it must be, such as "a whole number of at
            least 1, or None".

    Raises:
        Exception: what `fault` returned, for the first field that is out of bounds.
    """
    for name, annotation in of(cast(Any, type(value))).items():
        held = getattr(value, name)
        if not accepts(held, annotation):
            raise fault(name, held, say(annotation))


def accepts(value: Any, annotation: Any) -> bool:
    """Return whether a value is of an annotation's type and within its bounds.

    Beside bounds on numbers, `Any` stands for what is no number: `PositiveFloat | Any` takes an object, and no -1.
    """
    return _acceptor(annotation)(value)


def say(annotation: Any) -> str:
    """Return what an annotation with bounds takes, in words."""
    said = [_say(option) for option in options(annotation) if option is not type(None)]
    if type(None) in options(annotation):
        said.append("None")
    return ", or ".join(each for each in said if each)


@functools.cache
def _acceptor(annotation: Any) -> Callable[[Any], bool]:
    """Return a function that says whether it accepts a value; a spec is made for each call that generates."""
    union = options(annotation)
    if len(union) == 1:
        return _option_acceptor(annotation)
    rest = [_option_acceptor(option) for option in union if option is not Any]
    takes_any = Any in union
    takes_any_number = takes_any and not any(bounded(each) and plain(each) in (int, float) for each in union)

    def accepted(value: Any) -> bool:
        if takes_any and (takes_any_number or not isinstance(value, (int, float))):
            return True
        return any(accept(value) for accept in rest)

    return accepted


def _option_acceptor(option: Any) -> Callable[[Any], bool]:
    found = bounded(option)
    allow = found[1].allow if found is not None else lambda value: True
    kind = plain(option)
    origin = typing.get_origin(option)
    if kind in (None, type(None)):
        return lambda value: value is None
    if kind is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool) and allow(value)
    if kind is float:
        return lambda value: (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and allow(value)
        )
    if kind is str:
        return lambda value: isinstance(value, str) and allow(value)
    if origin is Literal:
        choices = typing.get_args(option)
        return lambda value: any(type(value) is type(choice) and value == choice for choice in choices)
    if origin in _LISTS:
        accept = _acceptor(typing.get_args(option)[0])
        return lambda value: isinstance(value, (tuple, list)) and all(map(accept, value))
    held = origin if isinstance(origin, type) else kind
    return lambda value: isinstance(value, held) if isinstance(held, type) else True


def _say(option: Any) -> str:
    found = bounded(option)
    if found is not None:
        return found[1].say(found[0])
    if typing.get_origin(option) is Literal:
        return ", ".join(map(repr, typing.get_args(option)))
    if typing.get_origin(option) in _LISTS:
        return f"a list whose members are each {say(typing.get_args(option)[0])}"
    return {int: "a whole number", float: "a number", str: "text", bool: "True or False"}.get(option, "")


def options(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, each with its bounds; another annotation alone."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _has_bounds(annotation: Any) -> bool:
    if bounded(annotation) is not None:
        return True
    return any(map(_has_bounds, typing.get_args(annotation)))
