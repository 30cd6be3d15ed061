"""The benchmark of constrained verse runs, and all that it constrained is well-formed."""

from __future__ import annotations

import json
import sys

import pytest
from places import ROOT


@pytest.mark.nightly
def test_a_quick_run_writes_its_rows_and_bars(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("benchmarks", None)
    from benchmarks import verse

    verse.main(["--quick", "--json", str(tmp_path / "verse.json")])
    found = json.loads((tmp_path / "verse.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in found["rows"]] == ["unconstrained", "constrained"]
    well_formed, speed = found["bars"]
    assert well_formed["holds"]
    assert well_formed["value"] == 1.0
    assert speed["value"] > 0
