"""What a message says of Python's arguments, said of the command's flags."""

from __future__ import annotations

import argparse
import re
from functools import partial

# `Pipeline(corpus=…)`, `fit(directory=…)`: the call that stands around an argument in a remedy.
_CALL = r"(?:\b(?:kg\.|kerasgen\.)?[A-Za-z_]+(?:\.[a-z_]+)*\()?"
_VALUE = r"""(?P<value>True|False|None|…|'[^']*'|"[^"]*"|[^\s,;:()]+?(?=[.,;:)]*(?:\s|$)))"""


def in_flags(message: str, parser: argparse.ArgumentParser) -> str:
    """Return the message with `seed=-1`, `` `max_new_tokens` `` and `overwrite=True` as the command spells them.

    Args:
        message: of an error.
        parser: of the command.
    """
    for name, spelled in _spellings(parser).items():
        word = re.escape(name)
        message = re.sub(rf"{_CALL}(?<![\w.:,|]){word}={_VALUE}\)?", partial(_written, spelled), message)
        message = re.sub(rf"`{word}`|\b\w+:{word}(?= takes )", spelled, message)
        # An underscore is no part of plain English; another name is meant only where the sentence speaks of it.
        ending = "" if "_" in name else r"(?= must | takes )"
        message = re.sub(rf"(?<![\w:'=.-]){word}(?![\w=']){ending}", spelled, message)
    return message


def _written(flag: str, found: re.Match[str]) -> str:
    value = found["value"]
    if value in ("True", "False", "None"):
        return flag if value == "True" else f"no {flag}"
    return f"{flag} {value}"


def _spellings(parser: argparse.ArgumentParser) -> dict[str, str]:
    """How the command spells each argument, the longest names first."""
    found = {}
    for action in parser._actions:
        long = [name for name in action.option_strings if name.startswith("--")]
        found[action.dest] = long[0] if long else str(action.metavar or action.dest.upper())
    return {name: found[name] for name in sorted(found, key=len, reverse=True)}
