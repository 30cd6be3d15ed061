"""Where things of this checkout lie that tests start or read."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
WITHOUT_TENSORFLOW = SUPPORT / "without_tensorflow"
ROOT = TESTS.parent
