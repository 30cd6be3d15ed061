"""Which tests are slow or nightly, and the order of their files, follow from what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiers

pytestmark = pytest.mark.one_backend
TESTS = """
import time
import pytest

@pytest.mark.parametrize("n", [1, 2, 3])
def test_long(n):
    time.sleep(0.2)

@pytest.mark.every_case
@pytest.mark.parametrize("n", [1, 2])
def test_each(n):
    time.sleep(0.2)

@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_marked(n): ...

@pytest.mark.parametrize("seconds", [0.5, 0.2])
def test_very_long(seconds):
    time.sleep(seconds)

@pytest.mark.essential
def test_what_is_needed():
    time.sleep(0.5)

def test_quick(): ...
"""
CONFTEST = """
import pytest
import tiers
reports, collected = [], set()
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    collected.update(item.nodeid for item in items)
    tiers.mark(items, tiers.read("jax"))
    tiers.longest_first(items, tiers.read("jax"))
def pytest_runtest_logreport(report):
    reports.append(report)
def pytest_sessionfinish(session):
    tiers.write("jax", reports, collected)
"""
MARKERS = "[pytest]\nmarkers =\n  slow\n  nightly\n  every_case\n  essential\n"


QUICK = "not slow and not nightly"
LONG = [f"test_long[{n}]" for n in (1, 2, 3)]
EACH = [f"test_each[{n}]" for n in (1, 2)]
VERY_LONG = ["test_very_long[0.5]", "test_very_long[0.2]"]
NEEDED = "test_what_is_needed"


def test_what_took_long_is_slow_and_further_cases_are_nightly(tmp_path):
    support, durations = str(tmp_path / "support"), tmp_path / "durations.json"
    source = Path(tiers.__file__).read_text(encoding="utf-8")
    source = source.replace("SLOW = 1.0", "SLOW = 0.1").replace("NIGHTLY = 5.0", "NIGHTLY = 0.4")
    for name, content in (
        ("support/tiers.py", source),
        ("tests/conftest.py", f"import sys\nsys.path.insert(0, {support!r})\n{CONFTEST}"),
        ("tests/test_a.py", "def test_first(): ..."),
        ("tests/test_b.py", TESTS),
        ("pytest.ini", MARKERS),
        ("durations.json", '{"jax": {"calls": {"tests/test_b.py::test_gone": 9}, "files": {}}}'),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")

    def names(marks: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", marks, "tests", "-v"]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
        return [line.split()[0].partition("::")[2] for line in said.splitlines() if " PASSED" in line]

    assert names(QUICK) == ["test_first", *LONG, *EACH, *VERY_LONG, NEEDED, "test_quick"]
    measured = json.loads(durations.read_text())["jax"]
    took_long = (*EACH, *LONG, *VERY_LONG[::-1], NEEDED)
    assert sorted(measured["calls"]) == [f"tests/test_b.py::{name}" for name in took_long]  # none that is gone
    assert measured["files"]["tests/test_b.py"] > 2.0 > measured["files"]["tests/test_a.py"]
    assert names(QUICK) == ["test_quick", "test_first"]  # the longer file first
    assert names("slow and not nightly") == [LONG[0], *EACH, "test_marked[1]", "test_marked[2]", VERY_LONG[1], NEEDED]
    assert names("nightly") == [*LONG[1:], VERY_LONG[0]]
