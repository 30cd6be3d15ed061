"""Lists of texts with figures, which a notebook shows as they are read."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar

T = TypeVar("T")


class ShownList(list[T]):
    """A list of `GeneratedText` or `FilledText` values; only a notebook treats it otherwise than a list."""

    def _repr_html_(self) -> str:
        html: str = import_module("kerasgen.reports.notebook").of_texts(self)  # which stands above this module
        return html


def shortened(text: str) -> str:
    """Return a text's `repr`, cut to 60 characters."""
    whole = repr(text)
    return whole if len(whole) <= 60 else f"{whole[:59]}…"
