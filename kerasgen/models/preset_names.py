"""Reads the names of KerasHub's presets from its files, so that a wrong name is refused before Keras is imported."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from kerasgen import keywords
from kerasgen.errors import UnknownNameError

# A preset table is a dictionary at the top of a `*_presets.py`; its keys stand at the first indentation.
_KEY = re.compile(r'^ {4}"([^"]+)": \{', re.MULTILINE)


@cache
def known() -> frozenset[str]:
    """Return every preset name of the installed KerasHub, of whatever task; empty if its files can't be found."""
    spec = find_spec("keras_hub")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return frozenset(
        name
        for folder in folders
        for path in (Path(folder) / "src" / "models").glob("*/*_presets.py")
        for name in _KEY.findall(path.read_text(encoding="utf-8"))
    )


def unknown(name: str, names: frozenset[str] | None = None) -> UnknownNameError:
    """Return the error that tells a person that there is no such preset, and which come close.

    Args:
        name: what was asked for.
        names: what there is; all of KerasHub's preset names if not given.
    """
    close = keywords.near(name, sorted({*(known() if names is None else names), "starter", "smollm2"}))
    hint = keywords.suggestion(close)
    return UnknownNameError(
        f"KerasHub has no preset called {name!r}, and no directory here has this name.{hint} Write a preset name such "
        "as 'gpt2_base_en' or 'opt_125m_en', 'hf://organisation/model', 'kaggle://…', 'starter', 'smollm2', a "
        "directory or a GGUF file.",
        name=name,
        near=close,
    )
