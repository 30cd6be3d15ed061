"""Lets the tests of this folder import the benchmarks, which read the repository's root."""

from __future__ import annotations

import sys

import pytest
from places import ROOT


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the repository's root the current directory, and importable."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)
    sys.modules.pop("benchmarks", None)
