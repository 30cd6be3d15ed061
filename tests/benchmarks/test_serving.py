"""The benchmark of the server runs, and its texts are the same alone and together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


@pytest.mark.nightly
@pytest.mark.one_backend
def test_a_quick_run_measures_clients_alone_and_together(tmp_path: Path) -> None:
    written = tmp_path / "serving.json"
    command = [sys.executable, "-m", "benchmarks.serving", "--quick", "--json", str(written)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = json.loads(written.read_text(encoding="utf-8"))
    assert [row["clients"] for row in found["rows"]] == [1, 4]
    assert all(bar["holds"] for bar in found["bars"])
