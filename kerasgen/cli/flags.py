"""Rewrites a message about Python's arguments so that it names the command's flags."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

from kerasgen import keywords
from kerasgen.samplers.foreign_arguments import as_text, borrowed

# `Pipeline(corpus=…)`, `fit(directory=…)`: the call that stands around an argument in a remedy.
_CALL = r"(?:\b(?:kg\.|kerasgen\.)?[A-Za-z_]+(?:\.[a-z_]+)*\()?"
_VALUE = r"""(?P<value>True|False|None|…|'[^']*'|"[^"]*"|[^\s,;:()]+?(?=[.,;:)]*(?:\s|$)))"""


def in_flags(message: str, parser: argparse.ArgumentParser) -> str:
    """Return the message with `seed=-1`, `` `max_new_tokens` `` and `overwrite=True` as the command spells them.

    Args:
        message: the message of an error.
        parser: the parser of the command.
    """
    # The names that a corpus, a tuner or a sampler takes are written as they are: `lora:rank=4`.
    message, listed, taken = message.partition(" It takes: ")
    message = re.sub(rf"\b(?:pass|use) ({'|'.join(_OF_CORPORA)})='?(\w+)'?", _in_corpus, message)
    for name, spelled in _spellings(parser).items():
        word = re.escape(name)
        message = re.sub(rf"{_CALL}(?<![\w.:,|]){word}={_VALUE}\)?", partial(_written, spelled), message)
        message = re.sub(rf"`{word}`|\b\w+:{word}(?= takes )", spelled, message)
        # An underscore is no part of plain English; another name is meant only where the sentence speaks of it.
        followed_by = "" if "_" in name else r"(?= must | takes )"
        message = re.sub(rf"(?<![\w:'=.-]){word}(?![\w=']){followed_by}", spelled, message)
    return message + listed + taken


def unrecognized(arguments: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """Return the message about arguments that the command doesn't have, with a suggestion for the first flag.

    Args:
        arguments: the arguments.
        parser: the parser of the command.
    """
    message = f"unrecognized arguments: {' '.join(arguments)}"
    place = next((n for n, argument in enumerate(arguments) if argument.startswith("--")), None)
    if place is None:
        return message
    word, _, value = arguments[place][2:].partition("=")
    word, value = word.replace("-", "_"), value or "".join(arguments[place + 1 : place + 2]) or "…"
    spelled = {action.dest: action.option_strings[-1] for action in parser._actions if action.option_strings}
    own = keywords.same(word, spelled)
    if own is not None:
        return f"{message}. Did you mean {spelled[own]!r}?"
    if "sampler" in spelled and borrowed(word) is not None:
        return f"{message}. How tokens are chosen is the sampler's: --sampler {as_text(word, value)}"
    tuned = _of_tuner(word, value) if "tuner" in spelled else None
    if tuned is not None:
        return f"{message}. That is the tuner's: --tuner {tuned}"
    close = [repr(spelled[name]) for name in keywords.near(word, spelled)]
    return f"{message}. Did you mean {' or '.join(close)}?" if close else message


# Settings of corpora that errors name as a way out.
_OF_CORPORA = ("on_error", "check_kind", "encoding")


def _in_corpus(match: re.Match[str]) -> str:
    return f"write {match[1]}={match[2].lower()} after the corpus's path, with a comma between"


def _of_tuner(word: str, value: str) -> str | None:
    """Return the spec of a tuner with this setting; None for a word that no tuner knows."""
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.lora import LoraTuner

    for name, tuner in (("full", FullTuner), ("lora", LoraTuner)):
        setting = keywords.same(word, [field.name for field in fields(tuner)])
        if setting is not None:
            return f"{name}:{setting}={value}"
    return None


def _written(flag: str, match: re.Match[str]) -> str:
    value = match["value"]
    if value in ("True", "False", "None"):
        return flag if value == "True" else f"no {flag}"
    return f"{flag} {value}"


def _spellings(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return how the command spells each argument, the longest names first."""
    spelling = {}
    for action in parser._actions:
        long = [name for name in action.option_strings if name.startswith("--")]
        spelling[action.dest] = long[0] if long else str(action.metavar or action.dest.upper())
    return {name: spelling[name] for name in sorted(spelling, key=len, reverse=True)}
