"""`kerasgen recipe`: the schema of recipes for editors, and the check of one."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import typer

from kerasgen.cli.arguments import Json, RecipeAssignments
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.terminal import show


def run(
    action: Annotated[
        Literal["schema", "check", "show"],
        typer.Argument(
            metavar="ACTION",
            help="schema writes a JSON Schema for editors; check tells what is wrong with a recipe; show writes it "
            "whole, with --set in it",
        ),
    ],
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="the recipe to check or show")] = None,
    assignments: RecipeAssignments = None,
    as_json: Json = False,
) -> int:
    """Write the schema, or read the recipe and say what it asks for."""
    from kerasgen.recipes import assigning, layout, reading, schema, values, writing

    if action == "schema":
        made = schema.schema()
        if as_json:
            show_json(made)
        else:
            show(json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    if file is None:
        raise ArgumentError(f"`file` is missing. Write: kerasgen recipe {action} poet.toml.")
    from kerasgen.pipeline import Pipeline

    recipe = reading.read(Path(file), Pipeline, assignments=assigning.parsed(assignments or ()))
    content = tomllib.loads(recipe.pipeline.to_recipe()) | {
        name: values.plain(value) for name, value in recipe.content.items() if name in (layout.OUTPUT, *layout.STEPS)
    }
    if as_json:
        show_json({"recipe": content})
    else:
        show(writing.text_of(content) if action == "show" else f"{file} is sound: {recipe.pipeline!r}")
    return 0
