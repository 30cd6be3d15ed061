"""Converts Chinese texts to simplified or traditional characters, by OpenCC."""

from __future__ import annotations

from collections.abc import Callable

from kerasgen.errors import MissingDependencyError


def converter(script: str) -> Callable[[str], str] | None:
    """Return a function that converts a text to a script, or None if the text is in that script.

    Args:
        script: `"as_is"`, `"simplified"` or `"traditional"`.

    Raises:
        MissingDependencyError: OpenCC is not installed.
    """
    if script == "as_is":
        return None
    try:
        import opencc
    except ImportError as cause:
        raise MissingDependencyError(
            f"script={script!r} needs OpenCC. Install it with: pip install 'kerasgen[opencc]'",
            package="opencc",
            extra="opencc",
        ) from cause
    simplify = opencc.OpenCC("t2s").convert
    if script == "simplified":
        return lambda text: str(simplify(text))
    complicate = opencc.OpenCC("s2t").convert
    return lambda text: text if simplify(text) != text else str(complicate(text))
