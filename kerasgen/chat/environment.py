"""The Jinja environment that chat templates are written for: transformers' helpers, in Jinja's sandbox."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# These markers surround the text inside {% generation %} during rendering. They are random, so a message cannot
# contain them.
_BEGIN: Final = f"\ue000{secrets.token_hex(8)}("
_END: Final = f"\ue001{secrets.token_hex(8)})"


class Generation(Extension):
    """The tag `{% generation %}`, around what a template writes of an answer."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the node of the tag and what stands in it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{_BEGIN}{caller()}{_END}"


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace, without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"A template may not set {name!r}.")
        super().__setitem__(name, value)


@lru_cache(maxsize=16)
def compiled(text: str) -> jinja2.Template:
    """Return a template, compiled; `jinja2.TemplateError` says what is wrong with it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now, "namespace": _Namespace}
    return environment.from_string(text)


def unmarked(rendered: str) -> tuple[str, list[tuple[int, int]]]:
    """Return a rendered text without the marks of `{% generation %}`, and the spans that they enclosed."""
    if _BEGIN not in rendered:
        return rendered, []
    texts: list[str] = []
    spans: list[tuple[int, int]] = []
    place = begin = 0
    for piece in rendered.replace(_END, _BEGIN).split(_BEGIN):
        texts.append(piece)
        if len(texts) % 2 == 0:
            spans.append((begin, begin + len(piece)))
        place += len(piece)
        begin = place
    return "".join(texts), spans


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON; Jinja's own filter would escape what HTML does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def plain(value: Any) -> Any:
    """Return what a template may see of a value: mappings, lists, tuples and JSON's scalars, copied.

    A template comes from a stranger, and must get no object whose methods do anything.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else [*map(plain, value)]
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return f"<{type(value).__name__}>"
