"""What is released is whole: the sdist, the wheel of it, and the tests against the installed wheel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from places import TESTS

ROOT = TESTS.parent


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.one_backend
@pytest.mark.timeout(900)
def test_the_wheel_and_the_sdist_are_whole_and_pass_their_quick_tests() -> None:
    missing = [name for name in ("build", "twine", "cffconvert") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"a release is checked with {', '.join(missing)}: pip install build twine cffconvert")
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to a release is what the repository tracks, and this is no repository")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "tools/check_release.py", "--borrow"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert done.stdout.endswith("The release is in order.\n")
