"""Asks whether something lies at a path, without raising: what can't be looked at counts as absent.

Before Python 3.14 pathlib raises for a name that is too long, and for a folder that is closed to the user.
"""

from __future__ import annotations

import os
from pathlib import Path


def exists(path: Path) -> bool:
    """Return whether a file, a folder or anything else lies there."""
    return os.path.exists(path)  # noqa: PTH110 - see above


def is_dir(path: Path) -> bool:
    """Return whether a folder lies there."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def is_file(path: Path) -> bool:
    """Return whether a regular file lies there."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def is_link(path: Path) -> bool:
    """Return whether a symbolic link lies there, wherever it leads."""
    return os.path.islink(path)  # noqa: PTH114 - see above
