"""Writes a pipeline as a recipe, from which an equal pipeline is made; what has no such form is an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen import constraints, specs
from kerasgen.corpora import splits
from kerasgen.corpora.base import CorpusSource
from kerasgen.corpora.texts import Texts
from kerasgen.errors import ArgumentError, KerasgenError, RecipeError, RecipeFault
from kerasgen.files import staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig
from kerasgen.models import resolving as models_resolving
from kerasgen.models.base import ModelSource
from kerasgen.models.hub import Hub
from kerasgen.recipes.layout import PARTS, TYPE
from kerasgen.recipes.values import plain, typed

_DEFAULTS = {"held_out": splits.HELD_OUT, "sample": "first", "streaming": False}


def tables(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a recipe.

    Args:
        settings: arguments of a pipeline, as it holds them: a source, a tuner, a sampler, a `GenerationConfig`.

    Raises:
        RecipeError: some have no form in TOML; has all of them.
    """
    content: dict[str, Any] = {}
    faults: list[RecipeFault] = []
    for name, value in settings.items():
        if value is None or (name in _DEFAULTS and value == _DEFAULTS[name]):
            continue
        try:
            if name == "generation_config":
                config = _generation(value)
                content |= {"generation": config} if config else {}
            elif name == "model":
                content[name] = _model(value)
            elif name in PARTS:
                content[name] = _part(name, value)
            else:
                content[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        except (KerasgenError, TypeError) as cause:
            faults.append(RecipeFault(name, str(cause)))
    if faults:
        told = "\n".join(f"A recipe can't hold this pipeline's {fault.key}: {fault.message}" for fault in faults)
        raise RecipeError(told, faults=faults)
    return content


def text_of(content: Mapping[str, Any], *, schema: str | None = None) -> str:
    """Return the TOML of a recipe.

    Args:
        content: its tables.
        schema: the path or address of the schema, for editors.
    """
    import tomli_w

    head = "" if schema is None else f"#:schema {schema}\n"
    return head + tomli_w.dumps(_ordered(content), multiline_strings=_readable(content)) + "\n" * (not content)


def write(path: str | os.PathLike[str], text: str, *, overwrite: bool) -> Path:
    """Write a recipe's text to a file, whole or not at all.

    Raises:
        ArgumentError: a file is there already.
        KerasgenError: it can't be written.
    """
    target = path_argument(path)
    if target.exists() and not overwrite:
        raise ArgumentError(f"{target} is there already. Choose another path, or pass overwrite=True.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.replace(target, text)
    except OSError as cause:
        raise KerasgenError(f"The recipe can't be written to {target}: {cause}") from cause
    return target


def _ordered(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables with plain values first, as TOML has them."""
    first = {name: value for name, value in content.items() if not isinstance(value, Mapping)}
    return first | {name: value for name, value in content.items() if name not in first}


def _readable(value: Any) -> bool:
    """Whether the texts of several lines stay the same as texts over several lines: TOML drops a carriage return."""
    if isinstance(value, Mapping):
        return all(map(_readable, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_readable, value))
    return not (isinstance(value, str) and "\r" in value)


def _part(name: str, value: Any) -> Any:
    if isinstance(value, Texts):
        if not isinstance(value.texts, tuple) or not all(isinstance(text, str) for text in value.texts):
            raise ArgumentError(
                f"{value!r} was given in Python. Only a list of strings can be written: put the texts into a file, "
                "and name it, as in corpus='jsonl:path=texts.jsonl'."
            )
        return list(value.texts)
    table = _table(name, value)
    return table[TYPE] if len(table) == 1 else table


def _model(value: ModelSource) -> Any:
    if isinstance(value, Hub):
        try:
            if models_resolving.resolve(value.preset) == value:
                return value.preset
        except KerasgenError:
            pass
    table = _table("model", value)
    return table[TYPE] if len(table) == 1 else table


def _table(name: str, value: Any) -> dict[str, Any]:
    """Return the table of a registered value, from which an equal one is made."""
    registry = PARTS[name]
    registered = registry.name_of(value)
    if registered is None:
        raise ArgumentError(
            f"{type(value).__name__} is no registered {registry.noun}, so a recipe can't name it. Declare it under the "
            f"entry-point group {registry.group!r}."
        )
    held = _without_corpora(value)
    arguments = plain(specs.to_arguments(held, error=registry.error)) if held is value else held
    if TYPE in arguments:
        raise ArgumentError(f"{registered!r} has an argument {TYPE!r}, which is a recipe's own word. Rename it.")
    known = specs.fields(type(value))
    for word, written in arguments.items():
        if name == "corpus" and isinstance(getattr(value, word), (CorpusSource, tuple)):
            continue
        try:
            same = typed(written, known[word]) == getattr(value, word)
        except ValueError:
            same = False
        if not same and not isinstance(getattr(value, word), os.PathLike):
            raise ArgumentError(f"{word}={getattr(value, word)!r:.200} would be read as something else.")
    return {TYPE: registered, **arguments}


def _without_corpora(value: Any) -> Any:
    """Return a corpus's arguments with tables for the corpora in them; the value itself if it has none."""
    of = getattr(value, "of", None)
    if not isinstance(value, CorpusSource) or isinstance(of, str) or of is None:
        return value
    others = {word: item for word, item in specs.changed(value).items() if word != "of"}
    return {"of": _nested(of), **plain(others)}


def _nested(value: Any) -> Any:
    if isinstance(value, Texts):
        return _part("corpus", value)
    if isinstance(value, CorpusSource):
        return _table("corpus", value)
    return [_nested(item) for item in value] if isinstance(value, (tuple, list)) else value


def _generation(config: GenerationConfig) -> dict[str, Any]:
    """Return the settings of a config that differ from their defaults, without the sampler."""
    settings = {name: value for name, value in config.changed().items() if name != "sampler"}
    for name in ("engine", "assistant_model"):
        if not isinstance(settings.get(name, ""), str):
            raise ArgumentError(f"{name} is written by its name or address. Received: {settings[name]!r:.80}.")
    constraint = settings.pop("constraint", None)
    written: dict[str, Any] = plain(settings)
    if constraint is not None:
        made = constraints.REGISTRY.to_manifest(constraint)
        written["constraint"] = {TYPE: made["name"], **plain(made["arguments"])} if made["arguments"] else made["name"]
    return written
