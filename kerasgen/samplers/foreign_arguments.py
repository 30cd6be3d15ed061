"""Translates arguments of other libraries' `generate` to kerasgen's samplers and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kerasgen.keywords import same

# Each with the sampler that it makes and its name there; "" for those that every sampler takes. The first kind counts.
_KINDS: dict[str, tuple[str, str]] = {
    "num_beams": ("Beam", "num_beams"),
    "num_beam_groups": ("Beam", "num_beam_groups"),
    "diversity_penalty": ("Beam", "diversity_penalty"),
    "length_penalty": ("Beam", "length_penalty"),
    "early_stopping": ("Beam", "early_stopping"),
    "penalty_alpha": ("Contrastive", "alpha"),
    "alpha": ("Contrastive", "alpha"),
    "top_p": ("TopP", "p"),
    "p": ("TopP", "p"),
    "min_p": ("MinP", "p"),
    "top_k": ("TopK", "k"),
    "k": ("TopK", "k"),
    "temperature": ("", "temperature"),
    "temp": ("", "temperature"),
    "repetition_penalty": ("", "repetition_penalty"),
    "no_repeat_ngram_size": ("", "no_repeat_ngram_size"),
    "bad_words": ("", "bad_words"),
    "do_sample": ("", ""),
}

ENDS = ("eos_token_id", "end_token_id", "stop_token_ids", "eos_token", "stop_token")
"""Words of other libraries for what ends a text."""
_ENDING = "A text ends at the end tokens of its model, and at the strings of `stop`, such as stop=['\\n\\n']."


def borrowed(key: str) -> str | None:
    """Return the sampler's setting that a word stands for, or None."""
    return same(key, _KINDS)


def as_sampler(settings: Mapping[str, Any], *, call: str = "") -> str:
    """Return advice that names the sampler and the end settings to use instead; empty if any setting is unknown.

    Args:
        settings: arguments that a call doesn't have.
        call: the call that takes the sampler, if it is another one.
    """
    ends = [key for key in settings if key in ENDS]
    if ends:
        others = {key: value for key, value in settings.items() if key not in ends}
        further = as_sampler(others, call=call) if others else ""
        return f"{_ENDING} {further}".strip() if further or not others else ""
    words = {key: borrowed(key) for key in settings}
    if None in words.values():
        return ""
    chosen = _written({str(words[key]): value for key, value in settings.items()})
    spelled = [f"{key!r} is read as {word!r}. " for key, word in words.items() if word != key]
    passed = f"kg.{call}(…, sampler={chosen})" if call else f"pass sampler={chosen}"
    return f"{''.join(spelled)}How tokens are chosen is the sampler's: {passed}."


def as_text(word: str, value: str) -> str:
    """Return the sampler with one setting as it is written in text, such as `top_k:temperature=0.5`.

    Args:
        word: the word that `borrowed` knows.
        value: the value of the setting.
    """
    setting = str(borrowed(word))
    kind, name = _KINDS[setting]
    if setting == "do_sample":
        return "greedy" if value.lower() in ("false", "no", "0") else "random"
    if name == "temperature" and value in ("0", "0.0"):
        return "greedy"
    return f"{re.sub('(?<!^)(?=[A-Z])', '_', kind or 'TopK').lower()}:{name}={value}"


def _written(settings: dict[str, Any]) -> str:
    """Return the sampler as a Python expression."""
    sampled = settings.pop("do_sample", None)
    if settings.get("temperature", settings.get("temp")) == 0 or (
        sampled is False and settings.get("num_beams") is None
    ):
        return "kg.Greedy()"
    if settings.get("num_beams") == 1:  # transformers' word for no search
        del settings["num_beams"]
    kinds = [kind for kind, _ in map(_KINDS.__getitem__, sorted(settings, key=list(_KINDS).index)) if kind]
    kind = kinds[0] if kinds else ("Random" if sampled else "TopK")
    takes_k = kind == "Contrastive" and {"top_k": "k", "k": "k"}
    arguments = {} if kinds or kind != "TopK" else {"k": "5"}
    left = []
    for word, value in settings.items():
        of, name = _KINDS[word]
        if of in ("", kind) or (takes_k and word in takes_k):
            arguments[name] = repr(value) if isinstance(value, (int, float)) else "…"
        else:
            left.append(word)
    written = f"kg.{kind}({', '.join(f'{name}={value}' for name, value in arguments.items())})"
    return written + (f" ({' and '.join(left)} would be another sampler's)" if left else "")
