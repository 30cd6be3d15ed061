"""Reads the job of a worker process and writes its answer: two files of JSON that its command line names."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from kerasgen import devices, garbage, quiet

# Packages that are large, or that an artefact should do without: a proof tells which of them its process loaded.
WATCHED = ("keras", "keras_hub", "tensorflow", "tensorflow_text", "jax", "torch")

PREPARED: Final = "prepared"
"""After the two files, an argument that says: the job comes later, and its end of standard input says when.

Names of modules to import before may follow.
"""
_STANDARD_INPUT = 0


def read() -> dict[str, Any]:
    """Return the job; of a process that was started before it, when it has come, with what it needs imported.

    Such a process ends when the one that started it does, or asks no more.
    """
    if sys.argv[3:4] == [PREPARED]:
        with garbage.put_off():
            for name in sys.argv[4:]:
                with suppress(ImportError):  # told where it is needed, in the words that are meant for it
                    quiet.load(name)
        if not os.read(_STANDARD_INPUT, 1):
            raise SystemExit(0)
        threading.Thread(target=_end_with_the_other, daemon=True).start()
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return job


def answer(content: Mapping[str, Any]) -> None:
    """Write the answer, with the packages that this process loaded and the most memory that it took."""
    modules = sorted(name for name in WATCHED if name in sys.modules)
    whole = {**content, "modules": modules, "peak_bytes": devices.peak_memory_bytes()}
    Path(sys.argv[2]).write_text(json.dumps(whole), encoding="utf-8")


def _end_with_the_other() -> None:
    """End this process when standard input ends, as it does with the process that started this one."""
    # Not by `sys.stdin`, whose lock Python would wait for at its end.
    while os.read(_STANDARD_INPUT, 1):
        pass
    os._exit(1)
