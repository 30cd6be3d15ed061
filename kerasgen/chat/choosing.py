"""Resolve the argument `chat_template`: a name, a template's text, or its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kerasgen import keywords
from kerasgen.chat.named import NAMED
from kerasgen.chat.template import ChatTemplate
from kerasgen.errors import ArgumentError

_IS_TEXT = ("{%", "{{")


def chosen(value: Any) -> str | None:
    """Return the name of a named template, or the text of another; None for None, which is the model's own.

    Args:
        value: a name, text in Jinja, the path of a file that holds such text, or None.

    Raises:
        ArgumentError: it is none of these.
        ChatTemplateError: the text is no template.
    """
    if value is None or value in NAMED:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and any(mark in value for mark in _IS_TEXT):
        ChatTemplate(value, name="chat_template").check()
        return value
    if isinstance(value, (str, os.PathLike)):
        path = Path(value).expanduser()
        try:
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                ChatTemplate(text, name=f"the chat template {str(path)!r}").check()
                return text
        except (OSError, UnicodeError, ValueError) as cause:
            raise ArgumentError(f"The chat template {str(value)!r:.200} can't be read: {cause}.") from cause
    hint = keywords.meant(value, tuple(NAMED)) if isinstance(value, str) else ""
    raise ArgumentError(
        f"chat_template must be {', '.join(map(repr, NAMED))}, a template's text in Jinja, the path of its file, or "
        f"None for the model's own. Received: {value!r:.80}.{hint}"
    )
