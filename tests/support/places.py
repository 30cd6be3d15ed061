"""Where things of this checkout lie that tests start or read."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
WITHOUT_TENSORFLOW = SUPPORT / "without_tensorflow"
ROOT = TESTS.parent


class PathLike:
    """A path that is neither text nor pathlib's."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def __fspath__(self) -> str:
        return self.path
