"""Reads the job of a worker process and writes its answer: two files of JSON that its command line names.

Further jobs, and parts of an answer that are given before its end, lie beside them with a number after their names.
"""

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

_jobs = threading.Semaphore(0)  # that came after the first one
_counted = {"jobs": 0, "parts": 0}  # read, and written


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
    return _job(0)


def read_further() -> dict[str, Any]:
    """Wait for the next job of a process that was started before the first one, and return it."""
    _jobs.acquire()
    _counted["jobs"] += 1
    return _job(_counted["jobs"])


def numbered(path: Path, number: int) -> Path:
    """Return where the job or the part of an answer with this number lies; the first job's number is 0."""
    return path.with_name(f"{path.name}.{number}") if number else path


def give_part(content: Mapping[str, Any]) -> None:
    """Write what is known of the answer, for the process that waits for it, and go on."""
    _counted["parts"] += 1
    path = numbered(Path(sys.argv[2]), _counted["parts"])
    written = path.with_name(path.name + ".part")
    written.write_text(json.dumps(content), encoding="utf-8")
    written.replace(path)


def answer(content: Mapping[str, Any]) -> None:
    """Write the answer, with the packages that this process loaded and the most memory that it took."""
    modules = sorted(name for name in WATCHED if name in sys.modules)
    whole = {**content, "modules": modules, "peak_bytes": devices.peak_memory_bytes()}
    Path(sys.argv[2]).write_text(json.dumps(whole), encoding="utf-8")


def _job(number: int) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(numbered(Path(sys.argv[1]), number).read_text(encoding="utf-8"))
    return job


def _end_with_the_other() -> None:
    """Count further jobs, and end this process with its standard input, as the process that started it ends."""
    # Not by `sys.stdin`, whose lock Python would wait for at its end.
    while os.read(_STANDARD_INPUT, 1):
        _jobs.release()
    os._exit(1)
