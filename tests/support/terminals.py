"""Reads what a program wrote to a terminal, for the tests that give it one."""

from __future__ import annotations

import os
from collections.abc import Iterator


def pieces(master: int) -> Iterator[bytes]:
    """The pieces that come out of a pseudo-terminal, until no program holds its other end any more.

    Args:
        master: the file descriptor of its near end, which stays open.
    """
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # Linux's end of a terminal
            return
        if not piece:  # other systems' end of it
            return
        yield piece
