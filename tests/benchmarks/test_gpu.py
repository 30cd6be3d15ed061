"""The benchmark of one GPU runs without TensorFlow, at a size that measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from installing import without_tensorflow
from places import ROOT

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]


def test_every_row_of_kerasgen_runs_without_tensorflow(tmp_path: Path) -> None:
    written = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--contenders", "kerasgen", "--json", str(written)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=without_tensorflow())
    rows = {row["part"]: row for row in json.loads(written.read_text(encoding="utf-8"))["rows"]}
    assert list(rows) == ["training", "lora", "decode 1", "decode 8", "decode 64", "decode 256", "prefill 1"]
    assert all("error" not in row and row["tokens_per_second"] > 0 and row["peak_gb"] > 0 for row in rows.values()), (
        rows
    )
    assert 0 < rows["training"]["mfu"] < 1


@pytest.mark.nightly
def test_rows_of_torch_run_where_it_is_installed(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package)
    written = tmp_path / "gpu.json"
    parts = "training,lora,decode 8,prefill 1"
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--contenders", "transformers,peft", "--only", parts]
    subprocess.run([*command, "--json", str(written)], cwd=ROOT, check=True, capture_output=True)
    rows = json.loads(written.read_text(encoding="utf-8"))["rows"]
    assert [row["part"] for row in rows] == parts.split(",")
    assert all("error" not in row and row["tokens_per_second"] > 0 for row in rows), rows
    for row in rows[:2]:
        assert abs(row["loss"] - 5.7) < 0.3, "the logarithm of 300 tokens that are drawn"
