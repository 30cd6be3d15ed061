"""A fresh process imports before its job is known, and is gone when nobody waits for it any more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kerasgen.errors import ExportError
from kerasgen.exporters.parity import worker

pytestmark = pytest.mark.one_backend

MODULES = {
    "adding": """
from kerasgen.runtime import job as jobs

job = jobs.read()
print("not an answer")
jobs.answer({"sum": sum(job["numbers"])})
""",
    "going_on": """
from kerasgen.runtime import job as jobs

numbers = jobs.read()["numbers"]
for place in range(len(numbers)):
    jobs.give_part({"sum": sum(numbers[: place + 1])})
jobs.answer({"product": jobs.read_further()["factor"] * jobs.read_further()["factor"]})
""",
    "in_part": """
from kerasgen.runtime import job as jobs

jobs.read()
jobs.give_part({"sum": 1})
raise SystemExit("broken after a part")
""",
    "telling": "import pathlib\npathlib.Path(__file__).with_name('told').touch()\n",
    "broken": "raise SystemExit('broken from the first line')",
    "endless": "import time\nfrom kerasgen.runtime import job as jobs\njobs.read()\ntime.sleep(600)",
}
NOBODY_LEFT = """
import os, sys
from kerasgen.exporters.parity import worker

processes = [worker.Worker("adding"), worker.Worker("endless")]
processes[1].give({})
print(*(process.pid for process in processes), flush=True)
sys.stdin.readline()
os._exit(1)
"""
FORKED = """
import os
from kerasgen.exporters.parity import worker

with worker.Worker("adding") as process:
    child = os.fork()
    if not child:
        process.close()
        os._exit(0)
    os.waitpid(child, 0)
    print(process.give({"numbers": [7]}).answer()["sum"])
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that the processes find, and their temporary files beside it."""
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    yield tmp_path
    assert list((tmp_path / "temporary").iterdir()) == []


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_job_may_come_long_after_the_process(modules: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with worker.Worker("adding", imports=("telling", "no_such_module")) as process:
        assert wait_until((modules / "told").exists), "it imports before there is a job"
        assert process.give({"numbers": [1, 2, 3]}).answer()["sum"] == 6
    assert worker.run("adding", {"numbers": [4, 5]})["sum"] == 9
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("at_once", [True, False])
def test_parts_of_an_answer_come_before_it_and_further_jobs_after_the_first(at_once: bool) -> None:
    with worker.Worker("going_on") as process:
        process.give({"numbers": [1, 2, 3]})
        if at_once:
            process.give({"factor": 6}).give({"factor": 7})
        assert [process.part()["sum"] for _ in range(3)] == [1, 3, 6]
        if not at_once:
            process.give({"factor": 6}).give({"factor": 7})
        assert process.answer()["product"] == 42


def test_a_part_that_does_not_come_is_told() -> None:
    with worker.Worker("in_part") as process:
        process.give({})
        assert process.part() == {"sum": 1}
        with pytest.raises(ExportError, match="exit status 1, and nothing was kept: broken after a part"):
            process.part()
    with worker.Worker("adding") as process, pytest.raises(ExportError, match="gave less of an answer"):
        process.give({"numbers": [1]}).part()
    with worker.Worker("endless") as process, pytest.raises(ExportError, match=r"did not finish in 0\.2 seconds"):
        process.give({}, timeout=0.2).part()


def test_what_was_asked_is_answered() -> None:
    with worker.Worker("adding") as first, worker.Worker("adding") as second:
        first.give({"numbers": [1]})
        second.give({"numbers": [2]})
        assert [process.answer()["sum"] for process in (second, first)] == [2, 1]


@pytest.mark.parametrize("module", ["adding", "endless"])
def test_a_process_that_nobody_asks_any_more_is_ended(module: str) -> None:
    with worker.Worker(module) as process:
        if module == "endless":
            process.give({})
    with pytest.raises(ChildProcessError):  # it was waited for, so no zombie is left
        os.waitpid(process.pid, 0)
    process.close()


def test_one_that_is_forgotten_is_ended_too() -> None:
    number = worker.Worker("adding").pid
    assert wait_until(lambda: is_gone(number))


def test_a_process_that_ends_before_its_job_says_why() -> None:
    with worker.Worker("broken") as process:
        assert wait_until(lambda: is_gone(process.pid))
        process.give({"numbers": []})
        with pytest.raises(ExportError, match="exit status 1, and nothing was kept: broken from the first line"):
            process.answer()


def test_a_process_that_takes_too_long_is_ended() -> None:
    with worker.Worker("endless") as process:
        process.give({}, timeout=0.2)
        with pytest.raises(ExportError, match=r"did not finish in 0\.2 seconds"):
            process.answer()
        assert is_gone(process.pid)


def test_a_program_that_can_not_be_started_is_an_export_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(ExportError, match="can't be started"):
        worker.Worker("adding")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system forks no processes")
def test_a_forked_process_leaves_it_alone() -> None:
    """In a process without JAX, whose threads warn of every fork."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")


def test_none_outlives_a_process_that_is_killed(modules: Path) -> None:
    """One waits for its job, one does it; neither can be told, and both see that nobody is there any more."""
    with subprocess.Popen(
        [sys.executable, "-c", NOBODY_LEFT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(modules)},  # what a killed process leaves is swept by the next
    ) as parent:
        assert parent.stdout is not None
        numbers = [int(number) for number in parent.stdout.readline().split()]
        parent.kill()
    assert len(numbers) == 2
    assert wait_until(lambda: all(map(is_gone, numbers)))
