"""Reads the fields of a request's JSON body, each checked, and refuses those that the server doesn't know."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from kerasgen.errors import ArgumentError
from kerasgen.keywords import did_you_mean


class RequestError(ArgumentError):
    """A request can't be carried out as written.

    Args:
        message: what to tell the client.
        field: the field of the body at fault, or None.
        status: of the answer.
        code: a word for programs, or None.
    """

    def __init__(self, message: str, field: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.field, self.status, self.code = field, status, code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.field, self.status, self.code)


def parsed(content: bytes) -> Mapping[str, Any]:
    """Return the object that a body holds.

    Raises:
        RequestError: it is no JSON object in UTF-8.
    """

    def refused(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        body = json.loads(content.decode("utf-8"), parse_constant=refused)
    except (ValueError, RecursionError) as cause:
        raise RequestError(f"The body must be a JSON object in UTF-8. {type(cause).__name__}: {cause}.") from cause
    if not isinstance(body, dict):
        raise RequestError(f"The body must be a JSON object. Received: {type(body).__name__}.")
    return body


class Fields:
    """The fields of a body, each of which is asked for once.

    Args:
        body: the body. A field that is null counts as left out.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = {name: value for name, value in body.items() if value is not None}
        self._known: set[str] = set()

    def get(self, name: str) -> Any:
        """Return a field as it is; None if it is left out."""
        self._known.add(name)
        return self._body.get(name)

    def whole(self, name: str, default: Any, *, least: int = 0, most: int | None = None) -> Any:
        """Return a whole number."""
        value = self.get(name)
        if value is None:
            return default
        # JSON knows one kind of number, and some clients write 16.0.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < least
            or (most is not None and value > most)
        ):
            upper = "" if most is None else f" to {most}"
            raise RequestError(f"`{name}` must be a whole number from {least}{upper}. Received: {value!r:.80}.", name)
        return value

    def number(self, name: str, *, least: float, most: float) -> float | None:
        """Return a number, or None if it is left out."""
        value = self.get(name)
        if value is None:
            return None
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not least <= value <= most:
            raise RequestError(f"`{name}` must be a number from {least:g} to {most:g}. Received: {value!r:.80}.", name)
        return float(value)

    def flag(self, name: str) -> bool:
        """Return true or false; false if it is left out."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise RequestError(f"`{name}` must be true or false. Received: {value!r:.80}.", name)
        return bool(value)

    def strings(self, name: str, *, most: int) -> tuple[str, ...]:
        """Return a string, or several, none of them empty."""
        value = self.get(name)
        listed = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or len(listed) > most or not all(isinstance(s, str) and s for s in listed):
            raise RequestError(
                f"`{name}` must be a string, or up to {most}, none of them empty. Received: {value!r:.80}.", name
            )
        return tuple(listed)

    def refuse(self, name: str, *, unless: tuple[Any, ...], why: str) -> None:
        """Refuse a field that asks for what the server doesn't do."""
        value = self.get(name)
        if value is not None and value not in unless:
            raise RequestError(f"`{name}` {why}. Received: {value!r:.80}. Leave it out.", name, code="unsupported")

    def ignore(self, names: Iterable[str]) -> None:
        """Know fields that change no text."""
        self._known.update(names)

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        unknown = sorted(set(self._body) - self._known)
        if unknown:
            raise RequestError(
                f"There is no field `{unknown[0]}` here.{did_you_mean(unknown[0], sorted(self._known))}", unknown[0]
            )
