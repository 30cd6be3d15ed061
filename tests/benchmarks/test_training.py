"""The benchmark of training runs, and tells the bars from its rows."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT))


def row(part: str, contender: str, **figures: float) -> dict[str, Any]:
    return {"part": part, "contender": contender, **figures}


def test_a_bar_is_told_from_two_rows_and_one_that_gave_up_is_slower_than_its_limit() -> None:
    from benchmarks.training import bars_of

    rows = [
        row("tang", "kerasgen", characters_per_second=90.0, peak_gib=3.0),
        row("tang", "tutorial", characters_per_second=10.0, peak_gib=4.0),
        row("bf16", "kerasgen", characters_per_second=90.0, seconds_per_step=20.0),
        row("bf16", "transformers bf16", gave_up_after_seconds=150.0),
    ]
    found = {bar["name"]: (bar["value"], bar["holds"]) for bar in bars_of(rows)}
    assert found["characters/s, Tang, base, x the tutorial's"] == (9.0, True)
    assert found["characters/s, Tang, base, x transformers bf16"] == (7.5, True)
    assert found["peak memory, base, share of the tutorial's"] == (0.75, False)
    assert len(found) == 3


def test_a_lead_is_told_in_its_parts() -> None:
    from benchmarks.training import LEAD, parts_of_lead

    rows = [
        row("lead", name, characters_per_second=speed) for name, speed in zip(LEAD, (1.0, 4.0, 5.0, 10.0), strict=True)
    ]
    found = {one["contender"]: one["ratio"] for one in parts_of_lead(rows)[len(rows) :]}
    assert found == {"of it: engine and precision": 4.0, "of it: packing": 1.25, "of it: vocabulary": 2.0}


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="it reads the memory of processes from Linux")
def test_a_smoke_run_writes_rows_of_two_contenders(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("the tutorial's recipe needs TensorFlow")
    command = [sys.executable, "-m", "benchmarks.training", "--quick", "--json", str(tmp_path / "figures.json")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=500, capture_output=True)
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [one["contender"] for one in found["rows"]] == ["kerasgen", "tutorial"]
    assert all(one["tokens_per_second"] > 0 and one["peak_gib"] > 0 for one in found["rows"])
