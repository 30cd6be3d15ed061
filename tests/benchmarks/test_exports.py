"""The benchmark of exports writes a row for each format that it is asked for."""

from __future__ import annotations

import json

import pytest


@pytest.mark.nightly
@pytest.mark.one_backend
def test_a_quick_run_writes_rows_of_two_formats(tmp_path, at_root):
    from benchmarks import exports

    exports.main(["--quick", "--only", "gguf,saved_model", "--json", str(tmp_path / "exports.json")])
    found = json.loads((tmp_path / "exports.json").read_text(encoding="utf-8"))
    assert [row["contender"] for row in found["rows"]] == ["gguf", "saved_model"]
    assert all(row["cpu_seconds"] > 0 and row["cpu_seconds_of_children"] > 0 for row in found["rows"])
    assert found["bars"] == []
