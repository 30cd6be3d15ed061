"""Keeps forked children from waiting for threads of the `tokenizers` library, which do not survive a fork."""

from __future__ import annotations

import functools
import os
from typing import Final

_VARIABLE: Final = "TOKENIZERS_PARALLELISM"


@functools.cache
def mind_forks() -> None:
    """From now on, let forked children encode on one thread.

    The library would do the same, and print four lines of warning in each child. Where a person has set
    `TOKENIZERS_PARALLELISM`, it stays as it is. Only the first call does anything.
    """
    if not hasattr(os, "register_at_fork"):
        return
    ours = False

    def before() -> None:
        nonlocal ours
        ours = _VARIABLE not in os.environ
        if ours:
            os.environ[_VARIABLE] = "false"

    def after_in_parent() -> None:
        if ours:
            os.environ.pop(_VARIABLE, None)

    os.register_at_fork(before=before, after_in_parent=after_in_parent)
