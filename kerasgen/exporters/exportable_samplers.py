"""Finds the samplers that a graph can hold: beam search, and every class that declares the inputs of its choice."""

from __future__ import annotations

from typing import Any

from kerasgen import samplers
from kerasgen.errors import ExportArgumentError, UnknownNameError
from kerasgen.samplers import inputs
from kerasgen.samplers.base import TokenSampler

BEAM = "beam"
_TAKEN = {
    *("prompts", "lengths", "max_new_tokens", "end_token_id", "seed", "temperature", "repetition_penalty"),
    *("valid_utf8", "slots", "mask", "hidden"),
    *("logits", "uniforms", "token_ids", "tokens", "input_pos", "step"),
}


def token_sampler(name: str) -> type[TokenSampler]:
    """Return the class of a registered sampler that a graph can hold.

    Raises:
        ExportArgumentError: there is none, or it chooses in Python.
    """
    try:
        kind = samplers.get(name)
    except UnknownNameError as cause:
        raise ExportArgumentError(str(cause)) from cause
    if not inputs.are_declared(kind):
        raise ExportArgumentError(
            f"A graph holds samplers that say which settings are `inputs` of their `choose`: {', '.join(held())}, and "
            f"such of other packages. Received: {name!r}{_why(kind)}."
        )
    taken = sorted({*inputs.types(kind)} & _TAKEN)
    if taken:
        raise ExportArgumentError(
            f"A graph has an input {taken[0]!r} of its own, and the sampler {name!r} calls one of its settings so. "
            "Give that field another name."
        )
    return kind


def _why(kind: type[Any]) -> str:
    return f"; {inputs.undeclared(kind)}" if issubclass(kind, TokenSampler) else ""


def held() -> list[str]:
    """Return the names of the built-in kinds that a graph can hold."""
    return [name for name in samplers.REGISTRY.built_ins() if inputs.are_declared(samplers.get(name))]
