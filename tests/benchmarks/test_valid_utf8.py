"""The benchmark of valid UTF-8 runs, and its figures are of calls that wrote as much."""

from __future__ import annotations

import json

import pytest


@pytest.mark.nightly
@pytest.mark.one_backend
def test_a_quick_run_writes_its_rows_and_bars(tmp_path, at_root):
    from benchmarks import valid_utf8

    valid_utf8.main(["--quick", "--only", "starter", "--json", str(tmp_path / "utf8.json")])
    found = json.loads((tmp_path / "utf8.json").read_text(encoding="utf-8"))
    assert [row["sampler"] for row in found["rows"]] == list(valid_utf8.SAMPLERS)
    assert all(0 < row["ratio"] < 10 and row["batch"] == 1 for row in found["rows"])
    assert len(found["bars"]) == len(found["rows"])
