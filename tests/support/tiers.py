"""Sorts tests by how long they took: what is quick, what integration runs besides, and what only a nightly run does.

`tests/durations.json` holds, for each backend, the seconds of the tests' calls that took long, and of all tests of a
file. `pytest --write-durations` brings it up to date with what that run measured.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "durations.json"
SLOW = 1.0  # seconds of a call
NIGHTLY = 5.0  # seconds of a call
_KEPT = SLOW / 2  # those are written down, so that a test near the limit does not go to and fro unseen
# These fork many times, which takes 20 times as long late in a process: the lighter ones first.
_FIRST = (
    "tests/generation/test_many.py",
    "tests/files/test_files.py",
    "tests/files/test_kills.py",
    "tests/tuners/test_checkpoints.py",
)
# The fixtures that all tests of a file share take long, and slow tests need them: they are made once, in integration.
_TOGETHER = (
    "tests/exporters/saved_model/test_exporter.py",
    "tests/exporters/test_exporters.py",
    "tests/integration/test_llama.py",
    "tests/tuners/test_resume.py",
)
_UNMEASURED = 30.0  # seconds that a file is taken to need which no run has measured yet
Durations = Mapping[str, Mapping[str, float]]


def read(backend: str) -> Durations:
    """Return the seconds of long `calls` by test and of all tests by `files`, as they were measured on a backend."""
    held: Durations = json.loads(FILE.read_text(encoding="utf-8"))[backend]
    return held


def mark(items: Iterable[pytest.Item], durations: Durations, *, slow: bool = True) -> None:
    """Mark as `slow` what took long, and of the cases of a test that took long all but the first as `nightly`.

    The first is the one that its author put first. It stands for the others in integration, unless the test is marked
    `every_case`. What took very long is `nightly`, too, and stands for nothing, unless it is marked `essential`.
    Of files whose fixtures take long, all tests are slow.

    Args:
        items: the tests.
        durations: what `read` returned.
        slow: whether the first long case is slow; otherwise it is run in each run.
    """
    seen: set[str] = set()
    for item in items:
        seconds = durations["calls"].get(item.nodeid, 0.0)
        if slow and item.nodeid.partition("::")[0] in _TOGETHER:
            item.add_marker("slow")
        if seconds < SLOW or item.get_closest_marker("nightly") or item.get_closest_marker("pages"):
            continue
        if seconds >= NIGHTLY and not item.get_closest_marker("essential"):
            item.add_marker("nightly")
            continue
        function = item.nodeid.partition("[")[0]
        is_further = function in seen and not item.get_closest_marker("every_case")
        if is_further or slow:
            item.add_marker("nightly" if is_further else "slow")
        seen.add(function)


def longest_first(items: list[pytest.Item], durations: Durations) -> None:
    """Sort tests by the seconds of their files, so that no worker begins a long one when the others have none left."""

    def key(item: pytest.Item) -> tuple[int, float]:
        file = item.nodeid.partition("::")[0]
        place = _FIRST.index(file) if file in _FIRST else len(_FIRST)
        return place, -durations["files"].get(file, _UNMEASURED)

    items.sort(key=key)


def write(backend: str, reports: Sequence[pytest.TestReport], collected: Collection[str]) -> None:
    """Bring the file up to date with the reports of a run, and forget tests that are no more.

    A file's seconds are the most that a run took for it.

    Args:
        backend: the backend of the run.
        reports: of each phase of each test that ran.
        collected: the names of all tests there are; empty if only some were looked at.
    """
    held = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    before = held.get(backend, {"calls": {}, "files": {}})
    calls, files = dict(before["calls"]), defaultdict[str, float](float)
    for report in reports:
        files[report.nodeid.partition("::")[0]] += report.duration
        if report.when == "call":
            calls[report.nodeid] = report.duration
    kept = {
        name: round(seconds, 1)
        for name, seconds in sorted(calls.items())
        if seconds >= _KEPT and (not collected or name in collected)
    }
    largest = {name: max(seconds, before["files"].get(name, 0.0)) for name, seconds in files.items()}
    totals = {name: round(seconds, 1) for name, seconds in sorted((before["files"] | largest).items())}
    held[backend] = {"calls": kept, "files": totals}
    FILE.write_text(json.dumps(held, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
