"""Licence and notices of the weights that a model was loaded from, which hold for what is made of them.

They are a part of the model's metadata (`BASE_MODEL`): a saved pipeline and each artefact keep them.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import KerasgenWarning
from kerasgen.models.base import BASE_MODEL, LanguageModel

CARD: Final = "README.md"
NOTICES: Final = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt")
_LONGEST: Final = 256 * 1024  # bytes of a file that is no licence any more
_FENCE: Final = re.compile(r"\A---\r?\n(.*?)\r?\n---\s", re.DOTALL)
# What a model card calls it, and what GGUF's `general.` does.
_KEYS: Final = {"license": "license", "license_name": "license.name", "license_link": "license.link"}


def read(find: Callable[[str], Path | None]) -> dict[str, Any]:
    """Return what the files of a model say of its licence, as `BASE_MODEL` holds it; empty where they say nothing.

    Of a model card (`README.md`) the settings before its text count, as the hub reads them.

    Args:
        find: returns the path of a file by its name, or None where there is none.
    """
    about: dict[str, Any] = {}
    settings = _settings(find(CARD))
    about |= {name: ", ".join(_texts(settings[key])) for key, name in _KEYS.items() if _texts(settings.get(key))}
    if languages := _texts(settings.get("language")):
        about["languages"] = languages
    notices = {name: text for name in NOTICES if (text := _text(find(name))) is not None}
    return about | ({"notices": notices} if notices else {})


def said(model: LanguageModel) -> dict[str, Any]:
    """Return what an artefact's report says of the weights that the model was tuned from, its notices whole."""
    about = {key: value for key, value in _base(model.metadata).items() if key != "types"}
    return {BASE_MODEL: about} if about else {}


def write(metadata: Mapping[str, Any], directory: Path, *, card: bool = True, **settings: Any) -> None:
    """Write a model card with the licence, and the notices as they were, into a directory; nothing where none is known.

    Args:
        metadata: of the model.
        directory: exists.
        card: whether the card is written too.
        **settings: further settings of the card, text or lists of text.
    """
    base = _base(metadata)
    for name, text in (base.get("notices") or {}).items():
        if name in NOTICES:
            (directory / name).write_text(text, encoding="utf-8")
    fields = {key: base[name] for key, name in _KEYS.items() if base.get(name)}
    if not card or not fields:
        return
    fields |= {"language": base["languages"]} if base.get("languages") else {}
    # JSON is YAML, so nothing in a value can end it.
    lines = [
        f"{key}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in {**fields, **settings}.items()
    ]
    name = base.get("name") or "a model of the licence above"
    text = f"This model was made of the weights of {name} by kerasgen. Their licence and notices hold for it.\n"
    (directory / CARD).write_text("\n".join(["---", *lines, "---", "", text]), encoding="utf-8")


def _settings(card: Path | None) -> Mapping[str, Any]:
    """The settings before a model card's text, every value of which stays text; a warning where they are no YAML."""
    text = _text(card)
    fence = None if text is None else _FENCE.match(text)
    if fence is None:
        return {}
    import yaml

    try:
        settings = yaml.load(fence[1], yaml.BaseLoader)
    except yaml.YAMLError as cause:
        warnings.warn(
            f"The settings of the model card {str(card)!r} can't be read, so the licence that they may name is not "
            f"kept: {' '.join(str(cause).split())}",
            KerasgenWarning,
            stacklevel=2,
        )
        return {}
    return settings if isinstance(settings, Mapping) else {}


def _texts(value: Any) -> list[str]:
    """The texts of a setting, which may be one or a list."""
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text]


def _base(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    base = metadata.get(BASE_MODEL)
    return base if isinstance(base, Mapping) else {}


def _text(path: Path | None) -> str | None:
    """Return the text of a file, or None where there is none, or one that is no licence."""
    try:
        if path is None or path.stat().st_size > _LONGEST:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
