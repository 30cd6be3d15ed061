"""Rewrites messages about Python's arguments, and about unknown flags, in the words of the command line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from typer.core import TyperCommand
from typer.exceptions import TyperException

from kerasgen import keywords
from kerasgen.samplers.foreign_arguments import as_text, borrowed

# `Pipeline(corpus=…)`, `fit(directory=…)`: the call that stands around an argument in a remedy.
_CALL = r"(?:\b(?:kg\.|kerasgen\.)?[A-Za-z_]+(?:\.[a-z_]+)*\()?"
_VALUE = r"""(?P<value>True|False|None|…|'[^']*'|"[^"]*"|[^\s,;:()]+?(?=[.,;:)]*(?:\s|$)))"""


def in_flags(message: str, command: TyperCommand) -> str:
    """Return the message with `seed=-1`, `` `max_new_tokens` `` and `overwrite=True` as the command spells them.

    Args:
        message: the message of an error.
        command: the command.
    """
    # The names that a corpus, a tuner or a sampler takes are written as they are: `lora:rank=4`.
    message, listed, taken = message.partition(" It takes: ")
    message = re.sub(rf"\b(?:pass|use) ({'|'.join(_OF_CORPORA)})=('[^']*'|\w+)", _in_corpus, message)
    negatives = {
        str(parameter.name): parameter.secondary_opts[0] for parameter in command.params if parameter.secondary_opts
    }
    for name, spelled in _spellings(command).items():
        word = re.escape(name)
        message = re.sub(
            rf"{_CALL}(?<![\w.:,|]){word}={_VALUE}\)?", partial(_written, spelled, negatives.get(name)), message
        )
        message = re.sub(rf"`{word}`|\b\w+:{word}(?= takes )", spelled, message)
        # An underscore is no part of plain English; another name is meant only where the sentence speaks of it.
        followed_by = "" if "_" in name else r"(?= must | takes )"
        message = re.sub(rf"(?<![\w:'=.-]){word}(?![\w=']){followed_by}", spelled, message)
    return message + listed + taken


def misused(error: TyperException, arguments: Sequence[str], commands: Iterable[str]) -> str:
    """Return what is wrong with the form of a command line, with what may have been meant.

    Args:
        error: what parsing raised.
        arguments: the whole command line.
        commands: the names of the commands.
    """
    flag = getattr(error, "option_name", None)
    context: Any = getattr(error, "ctx", None)
    if flag is not None and context is not None and type(error).__name__ == "NoSuchOption":
        return _unknown(str(flag), arguments, context.command)
    parameter: Any = getattr(error, "param", None)
    if parameter is not None:
        return _wrong_value(error.format_message(), parameter.opts, arguments)
    if context is not None and context.parent is None and not arguments:
        return f"A command is missing. There are: {', '.join(commands)}."
    if context is not None and context.parent is None:
        name = next((argument for argument in arguments if not argument.startswith("-")), "")
        if name and name not in commands:
            there = ", ".join(commands)
            return f"There is no command {name!r}.{keywords.did_you_mean(name, commands)} There are: {there}."
    return error.format_message()


def _wrong_value(message: str, flags: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the message about an argument's value or lack, with a suggestion where it is none of a few choices."""
    number = re.search(r"Input should be a valid (integer|number)", message)
    if number is not None:
        said = [next_one for flag, next_one in itertools.pairwise(arguments) if flag in flags]
        said += [
            value for flag, _, value in (argument.partition("=") for argument in arguments) if flag in flags and value
        ]
        kind = "a whole number" if number[1] == "integer" else "a number"
        return f"{flags[-1]} takes {kind}. Received: {', '.join(map(repr, said))}."
    message = message.replace("Value error, ", "").replace("Missing parameter: ", "Missing argument: ")
    choice = re.search(r"('.*') is not one of ('.*')\.$", message)
    if choice is None:
        return message
    return message + keywords.did_you_mean(choice[1].strip("'"), re.findall(r"'([^']*)'", choice[2]))


def _unknown(flag: str, arguments: Sequence[str], command: TyperCommand) -> str:
    """Return the message about a flag that the command doesn't have, with a suggestion."""
    place = next((n for n, said in enumerate(arguments) if said == flag or said.startswith(f"{flag}=")), None)
    said = flag if place is None else arguments[place]
    following = [] if place is None else [*arguments[place + 1 : place + 2]]
    message = f"There is no flag {flag}"
    word, _, value = said.lstrip("-").partition("=")
    word, value = word.replace("-", "_"), value or "".join(following) or "…"
    spelled = {name: flag for name, flag in _spellings(command).items() if flag.startswith("-")}
    own = keywords.same(word, spelled)
    if own is not None:
        return f"{message}. Did you mean {spelled[own]!r}?"
    if "sampler" in spelled and borrowed(word) is not None:
        return f"{message}. How tokens are chosen is the sampler's: --sampler {as_text(word, value)}"
    tuned = _of_tuner(word, value) if "tuner" in spelled else None
    if tuned is not None:
        return f"{message}. That is the tuner's: --tuner {tuned}"
    close = [repr(spelled[name]) for name in keywords.near(word, spelled)]
    return f"{message}. Did you mean {' or '.join(close)}?" if close else f"{message}."


# Settings of corpora that errors name as a way out.
_OF_CORPORA = ("on_error", "check_kind", "encoding", "delimiter")


def _in_corpus(match: re.Match[str]) -> str:
    value = match[2]
    value = value.strip("'") if value.startswith("'") else value.lower()
    return f"write {match[1]}={value} after the corpus's path, with a comma between"


def _of_tuner(word: str, value: str) -> str | None:
    """Return the spec of a tuner with this setting; None for a word that no tuner knows."""
    from kerasgen.tuners.full import FullTuner
    from kerasgen.tuners.lora import LoraTuner

    for name, tuner in (("full", FullTuner), ("lora", LoraTuner)):
        setting = keywords.same(word, [field.name for field in fields(tuner)])
        if setting is not None:
            return f"{name}:{setting}={value}"
    return None


def _written(flag: str, negative: str | None, match: re.Match[str]) -> str:
    value = match["value"]
    if value in ("True", "False", "None"):
        return flag if value == "True" else negative or f"no {flag}"
    return f"{flag} {value}"


def _spellings(command: TyperCommand) -> dict[str, str]:
    """Return how the command spells each argument, the longest names first."""
    spelling = {}
    for parameter in command.params:
        long = [name for name in parameter.opts if name.startswith("--")]
        spelling[str(parameter.name)] = long[0] if long else str(parameter.metavar or parameter.name).upper()
    return {name: spelling[name] for name in sorted(spelling, key=len, reverse=True)}
