"""Describes recipes as a JSON Schema for editors, from the signatures of the registered plugins."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from kerasgen import bounds, specs
from kerasgen.errors import PluginError
from kerasgen.generation.config import summary
from kerasgen.recipes import layout, values

if TYPE_CHECKING:
    from kerasgen.plugins import Registry

DRAFT = "http://json-schema.org/draft-07/schema#"
_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def schema() -> dict[str, Any]:
    """Return the schema of a recipe; plugins of other packages stand in it as built-ins do."""
    parts = {name: _part(name, registry) for name, registry in layout.PARTS.items()}
    config = _generation()
    evaluate = {name: _type(annotation) for name, annotation in layout.EVALUATE.items()}
    fit = {name: _type(annotation) for name, annotation in layout.FIT.items()}
    samples = {name: _type(annotation) for name, annotation in layout.SAMPLES.items()}
    return {
        "$schema": DRAFT,
        "title": "A recipe of kerasgen",
        "description": "What kerasgen fit does: a corpus, a model, a tuner, and what is made of the tuned model.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **parts,
            **{name: _type(annotation) for name, annotation in layout.SETTINGS.items()},
            "generation": _object(config, "The settings of generate where a call doesn't say."),
            layout.OUTPUT: {"type": "string", "description": "Where the tuned pipeline is saved."},
            "fit": _object(fit, "How the run goes."),
            "evaluate": _object(evaluate, "What is measured after tuning."),
            "samples": _object(samples | config, "What is written after tuning.", needed=["prompts"]),
            "exports": {"type": "array", "description": "Artefacts that are written.", "items": _exports()},
        },
    }


def _part(name: str, registry: Registry[Any]) -> dict[str, Any]:
    names = "|".join(map(re.escape, registry.names()))
    text: dict[str, Any] = {"type": "string", "description": f"{name} as text, such as name:key=value"}
    if name != "model":  # which may be any address
        text["pattern"] = f"^\\s*({names})\\s*(:|$)"
    tables = _tables(registry, default=layout.DEFAULT_TYPES.get(name))
    texts = [{"type": "array", "items": {"type": "string"}}] if name == "corpus" else []
    return {"anyOf": [text, *tables, *texts]}


def _tables(registry: Registry[Any], *, default: str | None = None) -> list[dict[str, Any]]:
    """Return a schema for the table of each plugin that can be loaded."""
    tables = []
    for name in registry.names():
        try:
            kind = registry.get(name)
        except PluginError:  # told by whoever asks for it
            continue
        needed = ([] if name == default else [layout.TYPE]) + specs.needed(kind)
        own = {layout.TYPE: {"const": name}} | settings(kind)
        tables.append(_object(own, (inspect.getdoc(kind) or name).split("\n\n")[0].replace("\n", " "), needed=needed))
    return tables


def _exports() -> dict[str, Any]:
    """Return the schema of one table of `exports`: settings are those of any exporter that fits its name."""
    registry = layout.exporter_registry()
    common = {name: _type(annotation) for name, annotation in layout.EXPORT.items()}
    each = []
    for table, name in zip(_tables(registry), _loadable(registry), strict=True):
        own = {word: value for word, value in table["properties"].items() if word != layout.TYPE}
        named = {"type": "string", "pattern": f"^{re.escape(name)}(:|$)"}
        each.append(_object(common | {"exporter": named} | own, table["description"], needed=["path"]))
    return {"anyOf": each}


def _loadable(registry: Registry[Any]) -> Iterable[str]:
    for name in registry.names():
        try:
            registry.get(name)
        except PluginError:
            continue
        yield name


def _generation() -> dict[str, Any]:
    described = {}
    for name, annotation in layout.generation().items():
        described[name] = {**_type(annotation), "description": summary(name)}
    tables = _tables(layout.constraint_registry())
    described["constraint"] = {"anyOf": [{"type": "string"}, *tables], "description": summary("constraint")}
    return described


def settings(kind: type[Any]) -> dict[str, Any]:
    """Return the schemas of a plugin's arguments, with what its documentation says of each."""
    told = _documented(kind)
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    found = {}
    for name, annotation in specs.bounded_fields(kind).items():
        found[name] = _type(annotation)
        if told.get(name):
            found[name]["description"] = told[name]
        if isinstance(defaults[name], (str, int, float, bool)):
            found[name]["default"] = defaults[name]
    return found


def _documented(kind: type[Any]) -> Mapping[str, str]:
    """Return the first sentence of each argument's entry in the docstrings of a class and those that it is made of."""
    told: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        text = inspect.cleandoc(one.__doc__ or "").partition("Args:\n")[2]
        for name, entry in re.findall(r"^ {4}(\w+): (.*\n?(?: {8}.*\n?)*)", text, re.MULTILINE):
            told[name] = " ".join(entry.split())
    return told


def _object(properties: Mapping[str, Any], description: str, *, needed: Iterable[str] = ()) -> dict[str, Any]:
    whole = {"type": "object", "description": description, "additionalProperties": False, "properties": {**properties}}
    return whole | ({"required": list(needed)} if list(needed) else {})


def _type(annotation: Any) -> dict[str, Any]:
    """Return the schema of an annotation."""
    options = [one for one in map(_option, specs.options(annotation)) if one is not None]
    if {} in options and any(len(one) > 1 and one["type"] in ("integer", "number") for one in options if "type" in one):
        options[options.index({})] = {"not": {"type": "number"}}  # a number is within the bounds
    if not options or {} in options:
        return {}
    distinct = [one for place, one in enumerate(options) if one not in options[:place]]
    return dict(distinct[0]) if len(distinct) == 1 else {"anyOf": distinct}


def _option(annotation: Any) -> dict[str, Any] | None:
    found = bounds.bounded(annotation)
    if found is not None:
        return {"type": _TYPES[found[0]], **found[1].schema()}
    if annotation in _TYPES:
        return {"type": _TYPES[annotation]}
    if annotation in (None, type(None)):
        return {"const": "none"}
    if typing.get_origin(annotation) is Literal:
        return {"enum": list(typing.get_args(annotation))}
    if values.is_list(annotation):
        members = typing.get_args(annotation)
        if typing.get_origin(annotation) is tuple and members[-1:] != (Ellipsis,):
            return {"type": "array", "items": [_type(member) for member in members], "minItems": len(members)}
        return {"type": "array", "items": _type(members[0]) if members else {}}
    if annotation is Any:
        return {}
    if annotation is dict or typing.get_origin(annotation) in (dict, Mapping):
        return {"type": "object"}
    return {"type": "string"} if "Path" in str(annotation) else None
