"""Opens a recipe: a TOML file, a text of several lines, or the tables themselves."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen import limits
from kerasgen.errors import RecipeError, RecipeFault
from kerasgen.files.path_arguments import path_argument


def opened(
    source: str | os.PathLike[str] | Mapping[str, Any],
) -> tuple[Path | None, str, dict[str, Any]]:
    """Return the path, the text and the tables of a recipe; no path and an empty text where there are none.

    Raises:
        RecipeError: it can't be read, or is no TOML.
    """
    if isinstance(source, Mapping):
        return None, "", dict(source)
    if isinstance(source, str) and "\n" in source:
        return None, source, _parsed(source, None)
    path = path_argument(source, name="recipe")
    try:
        text = limits.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as cause:
        raise RecipeError(
            f"There is no recipe {path}. A recipe is a TOML file: pipe.to_recipe({str(path)!r}) writes a pipeline's, "
            'or write one with the lines corpus = "text:path=poems.txt" and tuner = "full".',
            faults=[RecipeFault("", str(cause))],
            path=path,
        ) from cause
    except (OSError, ValueError) as cause:
        raise RecipeError(
            f"The recipe {path} can't be read: {cause}.", faults=[RecipeFault("", str(cause))], path=path
        ) from cause
    text = text.replace("\r\n", "\n")
    return path, text, _parsed(text, path)


def _parsed(text: str, path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as cause:
        found = re.search(r"\(at line (\d+)", str(cause))
        line = int(found[1]) if found else text.count("\n") + 1
        hint = ' Text stands in quotes, as in model = "starter".' if "Invalid value" in str(cause) else ""
        hint = " A setting and a table stand once." if re.search("overwrite|twice", str(cause)) else hint
        message = f"This is no TOML: {cause}.{hint}"
        place = "recipe" if path is None else path
        raise RecipeError(f"{place}:{line}: {message}", faults=[RecipeFault("", message, line)], path=path) from cause
