"""What JAX is given to compute does not grow unseen: its operations are counted, which no machine moves."""

from __future__ import annotations

import json

import pytest
import write_operations


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.essential
def test_graphs_are_as_large_as_they_were():
    """Where that is meant to change, `python tests/support/write_operations.py` writes the new counts."""
    held = json.loads(write_operations.HELD.read_text(encoding="utf-8"))
    for run, figures in write_operations.counted().items():
        assert figures == pytest.approx(held[run], rel=0.02), run
        assert figures["graphs"] <= held[run]["graphs"]
