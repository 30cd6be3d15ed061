"""The benchmark of generating runs, and says what it can say of a model that is too small to measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


@pytest.mark.slow
def test_a_quick_run_compiles_nothing_after_the_first_call_and_moves_less_than_keras_hub(tmp_path: Path) -> None:
    written = tmp_path / "generate.json"
    command = [sys.executable, "-m", "benchmarks.generate", "--quick", "--only", "batch8,calls,memory", "--json"]
    subprocess.run([*command, str(written)], cwd=ROOT, check=True, capture_output=True)
    found = json.loads(written.read_text())
    assert {row["part"] for row in found["rows"]} == {"batch8", "calls", "memory"}
    assert all(row["texts_like_kerasgens"] == "8/8" for row in found["rows"] if row["part"] == "batch8")
    bars = {bar["name"]: bar for bar in found["bars"]}
    assert bars["graphs compiled by ten calls after the first"]["holds"]
    assert bars["bytes accessed, kerasgen, x keras_hub jax"]["value"] < 1


@pytest.mark.nightly
@pytest.mark.one_backend
def test_proposals_of_a_quick_run_change_no_ids(tmp_path: Path) -> None:
    written = tmp_path / "speculation.json"
    command = [sys.executable, "-m", "benchmarks.generate", "--quick", "--only", "speculation", "--json", str(written)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = json.loads(written.read_text())["rows"]
    assert {row["contender"] for row in rows} == {"without", "draft that is right", "prompt lookup"}
    assert all(row["same_ids"] for row in rows)
    assert all(row["accepted"] == row["proposed"] > 0 for row in rows if row["contender"] == "draft that is right")


def test_a_bar_compares_with_the_contender_of_the_same_task_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.generate import bars_of

    def row(part: str, contender: str, **figures: object) -> dict[str, object]:
        return {"part": part, "contender": contender, "threads": 1, **figures}

    step = {"bytes_accessed": 1.0, "bytes_of_a_step": 1.0}
    rows = [
        row("batch1", "kerasgen", task="32 + 128", seconds=2.0),
        row("batch1", "keras_hub jax", task="32 + 128", seconds=3.0),
        row("batch1", "transformers", task="32 + 128", seconds=1.0),
        row("batch1", "ctranslate2", task="32 + 128", seconds=9.0) | {"threads": 2},
        row("batch8", "kerasgen", task="8", seconds=1.0),
        row("batch8", "keras_hub jax", task="8", seconds=9.0),
        row("batch8", "keras_hub tensorflow", task="8", seconds=4.0),
        row("beam", "kerasgen", seconds=1.0),
        row("beam", "keras_hub jax", seconds=1.9),
        row("top_p", "kerasgen", task="greedy 1", seconds=1.0),
        row("top_p", "kerasgen", task="top_p 1", seconds=1.05),
        row("first", "kerasgen", seconds=1.0),
        row("first", "keras_hub jax", seconds=2.0),
        row("memory", "kerasgen", **step),
        row("memory", "kerasgen, all positions filled", **step),
        row("memory", "keras_hub jax", bytes_accessed=4.0, bytes_of_a_step=2.0),
    ]
    assert {bar["name"]: (bar["value"], bar["holds"]) for bar in bars_of(rows)} == {
        "batch1, threads 1, x keras_hub jax": (1.5, True),
        "batch1, threads 1, x transformers": (0.5, False),
        "batch8, threads 1, x keras_hub tensorflow": (4.0, True),
        "beam, threads 1, x keras_hub jax": (1.9, False),
        "top_p 1, threads 1, x greedy": (1.05, True),
        "time to first token, x keras_hub jax": (0.5, False),
        "bytes accessed, kerasgen, x keras_hub jax": (0.25, True),
        "bytes of a step, kerasgen, x keras_hub jax": (0.5, False),
        "bytes accessed, kerasgen, all positions filled, x keras_hub jax": (0.25, True),
    }
