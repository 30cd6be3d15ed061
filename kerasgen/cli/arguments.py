"""Arguments that several commands take, and what they have in common: help texts and `--set`."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from kerasgen import keywords, specs
from kerasgen.errors import ArgumentError
from kerasgen.generation.config import GenerationConfig, summary
from kerasgen.models.base import WeightsDtype
from kerasgen.samplers.foreign_arguments import as_text, borrowed

_FIELDS = {field.name: field for field in dataclasses.fields(GenerationConfig)}


def option(*flags: str, help: str, metavar: str | None = None) -> Any:  # noqa: A002  as typer calls it
    """Return an option whose help text says its default itself."""
    return typer.Option(*flags, help=help, metavar=metavar, show_default=False)


def setting(name: str, *, short: str = "", such_as: str = "", default: str = "") -> Any:
    """Return the option of a setting of `GenerationConfig`; what is not given on the command line is None.

    Args:
        name: the name of the setting.
        short: another spelling, such as `-n`.
        such_as: what the help text shows besides, such as an example.
        default: the default of the command, in words, where it is another than the field's.
    """
    field = _FIELDS[name]
    flag = name.replace("_", "-")
    shown = default or ("none" if field.default in (None, ()) else str(field.default))
    flags: list[str] = [*([short] if short else []), f"--{flag}"]
    metavar: str | None = "TEXT"
    if field.type == "bool":
        flags, metavar, shown = [f"--{flag}/--no-{flag}"], None, f"--{'' if field.default else 'no-'}{flag}"
    elif str(field.type).startswith("int"):
        metavar = "N"
    elif "Sequence[str]" in str(field.type) or "Collection[str]" in str(field.type):
        such_as = such_as or "may be repeated"
    help_text = ", ".join(filter(None, [summary(name), such_as]))
    return option(*flags, help=f"{help_text} (default: {shown})", metavar=metavar)


Backend = Annotated[
    Literal["auto", "jax", "tensorflow", "torch"] | None,
    option("--backend", help="Keras's backend (default: KERAS_BACKEND; without it, auto to train, else jax)"),
]
Weights = Annotated[
    WeightsDtype | None,
    option(
        "--weights",
        help="data type of kernels and the token table; bfloat16 takes half of float32's memory (default: float32)",
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="a saved pipeline's directory, or a model: starter, smollm2, a KerasHub preset's name, a model's "
        "directory or GGUF file, hf://name/model",
    ),
]
Template = Annotated[
    str | None,
    option(
        "--chat-template",
        metavar="NAME",
        help="chatml, llama3, gemma, alpaca or a template's file, which writes conversations (default: the model's "
        "own)",
    ),
]
Json = Annotated[bool, option("--json", help="write one JSON object on standard output instead of text for people")]
Assignments = Annotated[
    list[str] | None,
    option("--set", metavar="KEY=VALUE", help="a further setting; may be repeated (default: none)"),
]
RecipeAssignments = Annotated[
    list[str] | None,
    option(
        "--set",
        metavar="KEY=VALUE",
        help="a setting in place of the recipe's, such as tuner.rank=16 (default: none)",
    ),
]


def verbosity(as_json: bool = False) -> int:
    """Return how the progress of a run is shown: as a bar in a terminal, elsewhere as a line an epoch.

    Args:
        as_json: nothing is shown, since standard output has one JSON object.
    """
    if as_json:
        return 0
    return 1 if sys.stdout.isatty() else 2


def assigned(values: Sequence[str] | None) -> dict[str, str]:
    """Return what `--set KEY=VALUE` says, as text by name.

    Raises:
        ArgumentError: one has no `=`, or a name comes twice.
    """
    settings: dict[str, str] = {}
    for value in values or ():
        name, equals, text = value.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ArgumentError(f"--set takes KEY=VALUE. Received: {value!r}.")
        if name in settings:
            raise ArgumentError(f"{name!r} must be said once. --set has it twice.")
        settings[name] = text
    return settings


def typed(settings: Mapping[str, str], annotations: Mapping[str, str], *, call: str) -> dict[str, Any]:
    """Return what `--set` says as the values that a call takes.

    Args:
        settings: as text, by name.
        annotations: what the call takes: the text of each argument's annotation, by name.
        call: how to name the call in a message.

    Raises:
        ArgumentError: the call takes no such argument, or the text is none of its kind.
    """
    values = {}
    for name, text in settings.items():
        if name not in annotations:
            if "sampler" in annotations and borrowed(name) is not None:
                raise ArgumentError(
                    f"{call} has no setting {name!r}. How tokens are chosen is the sampler's: "
                    f"--set sampler={as_text(name, text)}"
                )
            hint = keywords.did_you_mean(name, annotations)
            raise ArgumentError(f"{call} has no setting {name!r}.{hint} It takes: {', '.join(annotations)}.")
        words = re.findall(r"\w+", annotations[name])
        kind: Any = next((kind for kind in (bool, int, float) if kind.__name__ in words), str)
        values[name] = specs.read(text, kind | None if "None" in words else kind, where=f"{name!r} of --set")
    return values


def generation_settings(
    context: typer.Context, names: Sequence[str], values: Sequence[str] | None, *, without: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the settings of a call that generates, from flags and `--set`, checked before a model is loaded.

    Args:
        context: of the command.
        names: the settings that have flags.
        values: those of `--set`.
        without: settings that the command has no use for.

    Raises:
        ArgumentError: one is wrong or given twice.
    """
    annotations = {name: str(field.type) for name, field in _FIELDS.items() if name not in without}
    further = typed(assigned(values), annotations, call=str(context.info_name))
    # A list that is not given comes as an empty one.
    flags = {name: context.params[name] for name in names if context.params[name] not in (None, (), [])}
    settings = once(flags, further)
    for name in settings.keys() & {"stop", "allowed_special"}:
        value = settings[name]
        if not isinstance(value, str):
            settings[name] = list(value)
    return settings


def once(flags: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of flags and those of `--set` together.

    Raises:
        ArgumentError: one is given both ways.
    """
    twice = sorted(flags.keys() & further.keys())
    if twice:
        raise ArgumentError(f"{', '.join(f'`{name}`' for name in twice)} must be said once. --set says it too.")
    return {**flags, **further}


Sampler = Annotated[
    str | None,
    setting(
        "sampler",
        such_as="such as top_p:p=0.9,temperature=0.8",
        default="the pipeline's; top_k for a model, greedy for an artefact",
    ),
]
Seed = Annotated[int | None, setting("seed", default="the pipeline's; 0 otherwise")]
Stop = Annotated[list[str] | None, setting("stop")]
Engine = Annotated[str | None, setting("engine", such_as="such as keras or litert:quantize=int8")]
