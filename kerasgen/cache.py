"""Where kerasgen keeps what it can make again: token ids, artefacts, what was measured of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "KERASGEN_CACHE"
"""The environment variable that names another directory than the user's own."""


def directory(chosen: str | os.PathLike[str] | None = None) -> Path:
    """Return `chosen`, else what `KERASGEN_CACHE` names, else kerasgen's folder among the user's caches."""
    from platformdirs import user_cache_path

    return Path(chosen or os.environ.get(VARIABLE) or user_cache_path("kerasgen")).expanduser()
