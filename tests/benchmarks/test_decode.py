"""The benchmark of decoding writes artefacts, lets engines take turns, and says what of its bars holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

pytest.importorskip("litert_quantizer", reason="artefacts are written with packages of an extra: kerasgen[export]")


@pytest.mark.nightly
def test_a_quick_run_compares_the_same_ids_and_knows_every_bar(tmp_path: Path) -> None:
    written = tmp_path / "decode.json"
    command = [sys.executable, "-m", "benchmarks.decode", "--quick", "--only", "float32,saved_model,quality", "--json"]
    subprocess.run([*command, str(written)], cwd=ROOT, check=True, capture_output=True)
    found = json.loads(written.read_text(encoding="utf-8"))
    engines = [row for row in found["rows"] if row["part"] in ("float32", "saved_model")]
    assert len(engines) == 4
    assert all(row["ids_like_ours"] for row in engines)
    bars = {bar["name"]: bar for bar in found["bars"]}
    assert len(bars) == 4
    assert bars["starter, int8, held-out bits per character over float32's"]["holds"]
