"""Says where a setting belongs that stands at the top of a recipe and is none of a recipe's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen import keywords, specs
from kerasgen.recipes import layout
from kerasgen.recipes.layout import TYPE

_STEP_SETTINGS = {"fit": layout.FIT, "evaluate": layout.EVALUATE}


def unknown_at_top(name: str, content: Mapping[str, Any]) -> str:
    """Return what is wrong with a setting that no recipe has, and where it may belong."""
    places: list[tuple[str, Mapping[str, Any]]] = [("generation", layout.generation()), *_STEP_SETTINGS.items()]
    places = [*((top, specs.fields(layout.PARTS[top].get(kind))) for top, kind in _kinds(content)), *places]
    for where, known in places:
        own = keywords.same(name, known)
        if own is not None:
            return f"A recipe has no setting {name!r}. Write {own} = … under [{where}]."
    hint = keywords.did_you_mean(name, layout.TOP)
    return f"A recipe has no setting {name!r}.{hint}" + ("" if hint else f" It takes: {', '.join(layout.TOP)}.")


def _kinds(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the plugins whose settings may be meant at the top: those named, and of tuners both."""
    kinds = [("tuner", "full"), ("tuner", "lora"), ("sampler", "top_k")]
    for top in ("tuner", "sampler", "corpus"):
        value = content.get(top)
        name = value.get(TYPE) if isinstance(value, Mapping) else value
        name = str(name).partition(":")[0]
        if name in layout.PARTS[top].names():
            kinds.insert(0, (top, name))
    return kinds
