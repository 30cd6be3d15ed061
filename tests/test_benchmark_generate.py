"""The benchmark of generating runs, and says what it can say of a model that is too small to measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_quick_run_compiles_nothing_after_the_first_call_and_moves_less_than_keras_hub(tmp_path: Path) -> None:
    written = tmp_path / "generate.json"
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "benchmarks.generate", "--quick", "--only", "batch8,calls,memory", "--json"]
    subprocess.run([*command, str(written)], cwd=root, check=True, capture_output=True)
    found = json.loads(written.read_text())
    assert {row["part"] for row in found["rows"]} == {"batch8", "calls", "memory"}
    assert all(row["texts_like_kerasgens"] == "8/8" for row in found["rows"] if row["part"] == "batch8")
    bars = {bar["name"]: bar for bar in found["bars"]}
    assert bars["graphs compiled by ten calls after the first"]["holds"]
    assert bars["memory a step, x keras_hub jax"]["value"] < 1
