"""The benchmark of short texts stores them all and says what memory it took."""

from __future__ import annotations

import json

import pytest


@pytest.mark.nightly
@pytest.mark.one_backend
def test_a_quick_run_stores_every_text(tmp_path, at_root):
    from benchmarks import harness, short_texts

    if not harness.DATA.is_dir():
        pytest.skip("the shared corpora, whose words the texts are made of, are not here")
    short_texts.main(["--quick", "--json", str(tmp_path / "texts.json")])
    (row,) = json.loads((tmp_path / "texts.json").read_text(encoding="utf-8"))["rows"]
    # 1 in 20 is held out; near-duplicates are all kept, on one side.
    assert row["documents"] == 20_000
    assert row["peak_mb"] < 1000
    assert row["division_cpu_seconds"] > 0
