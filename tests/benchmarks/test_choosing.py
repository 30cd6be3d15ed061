"""The benchmark of choosing tokens runs, and knows each of its bars."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


@pytest.mark.slow
@pytest.mark.one_backend
def test_a_quick_run_measures_every_sampler_here_and_in_numpy(tmp_path: Path) -> None:
    written = tmp_path / "choosing.json"
    command = [sys.executable, "-m", "benchmarks.choosing", "--quick", "--json", str(written)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = json.loads(written.read_text(encoding="utf-8"))
    by = {row["what"]: row["milliseconds"] for row in found["rows"]}
    assert all(milliseconds > 0 for milliseconds in by.values())
    for name in ("greedy", "top_k:k=40", "top_p:p=0.9", "min_p", "random"):
        assert {f"choose {name}", f"numpy {name}"} <= by.keys(), by.keys()
    assert len(found["bars"]) >= 3
