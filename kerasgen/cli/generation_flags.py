"""Flags for the settings of `GenerationConfig`: type, default and help text come from its fields."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from kerasgen.generation.config import GenerationConfig, summary

_FIELDS = {field.name: field for field in dataclasses.fields(GenerationConfig)}


def add_setting(
    parser: argparse._ActionsContainer, name: str, *, short: str = "", such_as: str = "", default: str = ""
) -> None:
    """Add the flag of one setting; what is not given on the command line is None.

    Args:
        parser: the parser of the command, or a group of it.
        name: the name of the setting.
        short: another spelling, such as `-n`.
        such_as: what the help text shows besides, such as an example.
        default: the default of the command, in words, where it is another than the field's.
    """
    field = _FIELDS[name]
    shown = default or ("none" if field.default in (None, ()) else str(field.default))
    options: dict[str, Any] = {}
    if field.type == "bool":
        options["action"] = argparse.BooleanOptionalAction
        shown = f"--{'' if field.default else 'no-'}{name.replace('_', '-')}"
    elif field.type == "int" or str(field.type).startswith("int |"):
        options |= {"type": int, "metavar": "N"}
    elif "Sequence[str]" in str(field.type) or "Collection[str]" in str(field.type):
        options |= {"action": "append", "metavar": "TEXT"}
        such_as = such_as or f"each --{name} names one"
    help_text = ", ".join(filter(None, [summary(name), such_as]))
    flags = [*([short] if short else []), f"--{name.replace('_', '-')}"]
    parser.add_argument(*flags, dest=name, help=f"{help_text} (default: {shown})", **options)
