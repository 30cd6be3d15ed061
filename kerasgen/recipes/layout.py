"""The tables and settings of a recipe, with the types that they take."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from kerasgen import constraints, corpora, exporters, models, samplers, tuners
from kerasgen.bounds import NonNegativeInt, PositiveInt, Seed
from kerasgen.corpora import splits
from kerasgen.generation.config import COUNTS, GenerationConfig
from kerasgen.models.base import WeightsDtype

if TYPE_CHECKING:
    from kerasgen.plugins import Registry

TYPE: Final = "type"
"""The key that names the plugin of a table, as in `type = "lora"`; corpora have arguments that are called `name`."""

PARTS: Final[Mapping[str, Registry[Any]]] = {
    "corpus": corpora.REGISTRY,
    "model": models.REGISTRY,
    "tuner": tuners.REGISTRY,
    "sampler": samplers.REGISTRY,
}
"""What a text or a table names: a part of the pipeline."""

DEFAULT_TYPES: Final = {"model": "starter", "tuner": "full", "sampler": "top_k"}
"""The plugin of a table that doesn't say its `type`."""

SETTINGS: Final[Mapping[str, Any]] = {
    "seed": Seed,
    "held_out": splits.HeldOut,
    "max_documents": PositiveInt | None,
    "sample": Literal["first", "random"],
    "backend": Literal["auto", "jax", "tensorflow", "torch"] | None,
    "cache": str | None,
    "chat_template": str | None,
    "weights": WeightsDtype | None,
    "streaming": bool | PositiveInt,
}
"""Arguments of the pipeline that are plain values."""

OUTPUT: Final = "output"

FIT: Final[Mapping[str, Any]] = {
    "directory": str | None,
    "resume": bool | Literal["auto"],
    "sample_prompt": str,
}
EVALUATE: Final[Mapping[str, Any]] = {
    "corpus": str | None,
    "batch_size": PositiveInt,
    "texts": NonNegativeInt,
    "prompt": str | tuple[str, ...],
    "max_new_tokens": PositiveInt,
    "sampler": str,
    "seed": Seed | None,
    "self_bleu": bool,
    "scores_path": str | None,
}
SAMPLES: Final[Mapping[str, Any]] = {"prompts": tuple[str, ...], "path": str | None}
"""Besides these, `samples` takes what `generation` does."""

EXPORT: Final[Mapping[str, Any]] = {"path": str, "exporter": str | None}
"""Besides these, a table of `exports` takes the settings of its exporter."""

STEPS: Final = ("fit", "evaluate", "samples", "exports")
TOP: Final = (*PARTS, *SETTINGS, "generation", OUTPUT, *STEPS)


@functools.cache
def generation() -> dict[str, Any]:
    """Return what `generation` takes, by name, with resolved annotations; the sampler is the pipeline's."""
    hints = typing.get_type_hints(GenerationConfig, localns={"EngineSource": str})
    hints = {name: hint for name, hint in hints.items() if not name.startswith("_") and name != "sampler"}
    hints |= dict.fromkeys(COUNTS, PositiveInt | None) | {"seed": Seed | tuple[Seed, ...] | None}
    return hints | {"constraint": str | None, "assistant_model": str | None, "engine": str}


def constraint_registry() -> Registry[Any]:
    """Return the registry of what `generation.constraint` names."""
    return constraints.REGISTRY


def exporter_registry() -> Registry[Any]:
    """Return the registry of what a table of `exports` names."""
    return exporters.REGISTRY
