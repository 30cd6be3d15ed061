"""Puts Python's searches for reference cycles off while much is made that stays. Imports the standard library only."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

RARELY: Final = (50_000, 50, 1_000)
"""Thresholds of `gc` meanwhile: the search of all objects, 0.1 s of a process that has imported Keras, never comes."""

_lock = threading.Lock()
_before: tuple[int, int, int] | None = None
_depth = 0


@contextmanager
def put_off() -> Iterator[None]:
    """Let objects in cycles wait longer to be found while the block runs.

    Libraries that are imported, models that are made and graphs that are traced are a million objects that stay. Python
    searched all of them seven times on the way to a first training step, for a twelfth of the time to it. A program
    that has set higher thresholds, or has switched searches off, keeps its own.
    """
    global _before, _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _before = gc.get_threshold()
            if 0 < _before[0] < RARELY[0]:
                gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                assert _before is not None
                if gc.get_threshold() == RARELY:  # nobody has set others meanwhile
                    gc.set_threshold(*_before)
                _before = None
