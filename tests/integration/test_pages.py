"""The pages of the documentation are built without a warning, and what their examples show is what they print."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from places import ROOT

DOCS = ROOT / "docs"
BUILT = DOCS / "_build"


@pytest.mark.pages
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("builder", ["doctest", "html"])
def test_sphinx_has_nothing_to_complain_of(builder: str) -> None:
    """In a process of its own, on the backend that pages have for a reader who names none."""
    environment = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "KERASGEN_CACHE")}
    options = ["-n", "-W", "-q", "-b", builder, "-d", str(BUILT / "doctrees")]  # which both builders read
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(BUILT / builder)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
