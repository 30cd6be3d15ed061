"""A sampler's settings become inputs of a compiled graph, so that one graph serves all their values.

Every executor that compiles a choice takes a sampler through this module and `TokenSampler.choose` alone, and knows no
kind by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeGuard, cast

from kerasgen import bounds
from kerasgen.errors import KerasgenError, SamplerArgumentError
from kerasgen.samplers.base import TokenSampler

MOST_WHOLE = 2**31 - 1
"""What a whole number is at most in a graph; a larger one is taken for it."""


def are_declared(kind: Any) -> TypeGuard[type[TokenSampler]]:
    """Return whether a sampler's class declares all of its own settings as inputs of its `choose`."""
    return isinstance(kind, type) and issubclass(kind, TokenSampler) and not undeclared(kind)


def undeclared(kind: type[TokenSampler]) -> str:
    """Return why one graph can't serve all settings of a sampler's class; empty if it can."""
    # A subclass that inherits `choose` keeps its inputs; one that writes its own `choose` must declare them again.
    author = next(base for base in kind.__mro__ if "choose" in vars(base))
    if vars(author).get("inputs") is None or kind.inputs is None:
        return f"{author.__name__} writes `choose` and says no `inputs` beside it"
    shared = {field.name for field in fields(TokenSampler)}
    left_out = [field.name for field in fields(kind) if field.name not in {*shared, *kind.inputs}]
    return f"its `inputs` leave out {', '.join(map(repr, left_out))}, which a graph would not know" if left_out else ""


def types(kind: type[TokenSampler]) -> dict[str, type]:
    """Return the type of each input of a sampler's class, `int` or `float`.

    Raises:
        SamplerArgumentError: an input is no field of the kind, or not declared as a number.
    """
    written = {field.name: field.type for field in fields(kind)}
    declared = {name: bounds.plain(annotation) for name, annotation in bounds.declared(cast(Any, kind)).items()}
    for name in kind.inputs or ():
        if declared.get(name) not in (int, float):
            what = f"is declared as {written[name]!r}" if name in written else "is none of its fields"
            raise SamplerArgumentError(
                f"The sampler {kind.__name__} says that {name!r} is an input of its `choose`, and that {what}. Inputs "
                "are fields declared as `int` or `float`: one graph serves all their values."
            )
    return {name: declared[name] for name in kind.inputs or ()}


def values(spec: TokenSampler) -> dict[str, int | float]:
    """Return the inputs of a sampler as Python numbers that fit into 32 bits."""
    typed = {name: (type_of, getattr(spec, name)) for name, type_of in types(type(spec)).items()}
    return {
        name: min(value, MOST_WHOLE) if type_of is int else float(value) for name, (type_of, value) in typed.items()
    }


def has_temperature(kind: type[TokenSampler]) -> bool:
    """Return whether this class's graph takes a temperature; greedy choice is the same at any."""
    return kind.draws or bool(kind.inputs)


def choose(kind: type[TokenSampler], settings: Mapping[str, Any], xp: Any, logits: Any, uniforms: Any) -> Any:
    """Trace a sampler's `choose` as part of a graph.

    Args:
        kind: the sampler's class.
        settings: the graph's values of its inputs, by name.
        xp: the graph's array namespace.
        logits: `(rows, vocabulary_size)`.
        uniforms: `(rows,)`, between 0 and 1.

    Raises:
        SamplerArgumentError: its `choose` can't be part of a graph.
    """
    try:
        return kind.choose(traced(kind, settings), xp, logits, uniforms)
    except KerasgenError:
        raise
    except Exception as cause:
        raise SamplerArgumentError(
            f"The `choose` of the sampler {kind.__name__} can't be part of a graph: {type(cause).__name__}: {cause} "
            "There, its inputs have no value yet (`xp.where(…)` instead of `if`), and it computes with `xp` alone."
        ) from cause


def traced(kind: type[TokenSampler], settings: Mapping[str, Any]) -> TokenSampler:
    """Return a sampler whose settings are an executor's values, so that its `choose` can be traced."""
    spec = object.__new__(kind)
    for name in kind.inputs or ():
        object.__setattr__(spec, name, settings[name])
    return spec
