"""The words that the Hugging Face hub knows in the settings of a model card: licences, tasks, forms of names."""

from __future__ import annotations

import re
from typing import Any, Final

LICENCES: Final = frozenset((
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0",
    "etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1",
    "lgpl-3.0", "isc", "h-research", "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0",
    "odc-by", "odbl", "openmdw-1.0", "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib",
    "pddl", "lgpl-lr", "deepfloyd-if-license", "fair-noncommercial-research-license", "llama2", "llama3",
    "llama3.1", "llama3.2", "llama3.3", "llama4", "grok2-community", "gemma", "unknown", "other",
))  # fmt: skip
TASK: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|code|multilingual")
REPOSITORY: Final = re.compile(r"([\w.-]{1,96}/)?[\w.-]{1,96}", re.ASCII)

_SPELLED: Final = {
    "apache": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "apache-license-version-2.0": "apache-2.0",
    "apache2": "apache-2.0",
    "apache-2": "apache-2.0",
    "mit-license": "mit",
    "the-mit-license": "mit",
    "cc0": "cc0-1.0",
    "gplv3": "gpl-3.0",
    "gplv2": "gpl-2.0",
}


def licence_settings(about: dict[str, Any]) -> dict[str, str]:
    """Return the settings of a card that name a licence; empty where none is known.

    Args:
        about: what is known of a model's weights: `license`, `license.name`, `license.link` and `notices`.
    """
    named = about.get("license")
    if not isinstance(named, str) or not named.strip():
        return {}
    key = re.sub(r"[\s_,]+", "-", named.strip().lower())
    key = _SPELLED.get(key, key)
    if key in LICENCES and key != "other":
        return {"license": key}
    name = about.get("license.name") or named
    settings = {"license": "other", "license_name": re.sub(r"[^a-z0-9.+-]+", "-", str(name).lower()).strip("-")}
    link = about.get("license.link") or next(iter(about.get("notices") or ()), None)
    return settings | ({"license_link": str(link)} if link else {})


def languages(*lists: Any) -> list[str]:
    """Return the languages' codes of several lists, each once, without what is no code."""
    codes: dict[str, None] = {}
    for each in lists:
        for code in each if isinstance(each, (list, tuple)) else [each]:
            if isinstance(code, str) and LANGUAGE.fullmatch(code.strip()):
                codes[code.strip()] = None
    return list(codes)
