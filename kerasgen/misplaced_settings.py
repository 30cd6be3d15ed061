"""Says where a setting belongs that a `Pipeline` method lacks: to the tuner, the sampler or another call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from kerasgen.generation.config import FIELDS
from kerasgen.keywords import Elsewhere, same
from kerasgen.samplers.foreign_arguments import ENDS, as_sampler, borrowed

# The arguments of the calls, to be recognized where another call receives one of them.
PIPELINE = (
    "corpus",
    "model",
    "tuner",
    "sampler",
    "generation_config",
    "seed",
    "held_out",
    "max_documents",
    "sample",
    "backend",
    "cache",
    "chat_template",
    "weights",
    "streaming",
)
FIT = ("directory", "resume", "callbacks", "sample_prompt", "verbose")
GENERATE = tuple(name for name in FIELDS if name not in ("sampler", "seed", "batch_size"))


def elsewhere(own: Iterable[str], *, in_pipeline: bool = False) -> Elsewhere:
    """Return a function that says where settings belong that a call doesn't have.

    Args:
        own: the arguments that the call has; one that is spelled like them is left to them.
        in_pipeline: whether the call is the constructor, which takes tuner and sampler.
    """
    known = tuple(own)

    def place(settings: Mapping[str, Any]) -> str:
        owners = {key: _owner(key, known) for key in settings}
        if not all(owners.values()):
            return ""
        sentences = []
        for owner in dict.fromkeys(named for named in owners.values() if named):
            owned = {key: value for key, value in settings.items() if owners[key] == owner}
            sentences.append(_sentence(owner, owned, in_pipeline=in_pipeline, has_sampler="sampler" in known))
        return " ".join(sentences)

    return place


def _names() -> dict[str, tuple[str, ...]]:
    """Return the names that each owner has, in the order in which owners are asked."""
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.lora import LoraTuner

    full = tuple(field.name for field in fields(FullTuner))
    lora = tuple(field.name for field in fields(LoraTuner) if field.name not in full)
    return {"FullTuner": full, "LoraTuner": lora, "Pipeline": PIPELINE, "fit": FIT, "generate": GENERATE}


def _owner(key: str, own: tuple[str, ...]) -> str | None:
    names = _names()
    exact = next((owner for owner, known in names.items() if key in known), None)
    if exact is not None:
        return exact
    if key in ENDS:
        return "sampler"
    if same(key, own) is not None:
        return None
    if borrowed(key) is not None:
        return "sampler"
    return next((owner for owner, known in names.items() if same(key, known) is not None), None)


def _sentence(owner: str, settings: Mapping[str, Any], *, in_pipeline: bool, has_sampler: bool) -> str:
    if owner == "sampler":
        return as_sampler(settings, call="" if has_sampler else "Pipeline")
    known = _names()[owner]
    written = ", ".join(f"{same(key, known)}={_value(value)}" for key, value in settings.items())
    if owner in ("FullTuner", "LoraTuner"):
        tuner = f"tuner=kg.{owner}({written})"
        return (
            f"That is the tuner's: pass {tuner}." if in_pipeline else f"That is the tuner's: kg.Pipeline(…, {tuner})."
        )
    if owner == "Pipeline":
        return f"That is said when the pipeline is made: kg.Pipeline(…, {written})."
    return f"That is said later: pipe.{owner}({'…, ' if owner == 'generate' else ''}{written})."


def _value(value: Any) -> str:
    return repr(value) if isinstance(value, (int, float)) or (isinstance(value, str) and len(value) < 40) else "…"
