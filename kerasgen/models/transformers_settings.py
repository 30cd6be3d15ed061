"""Translates the settings of a transformers-format model for KerasHub's layers.

A key of `config.json` is handed over, has the one value that the layers compute, or changes nothing that a model says.
Any other is an error, for a model that is read without one key of it says something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.models import architectures, transformers_rotary
from kerasgen.models.architectures import rotary_keys
from kerasgen.models.architectures.config_rules import FIXED, IRRELEVANT, ConfigRules
from kerasgen.models.transformers_rotary import CHANGED


def settings(preset: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration that says all that a converter reads, checked key by key.

    Args:
        preset: a directory or hub address, for messages.
        config: the content of its `config.json`.

    Raises:
        ModelFormatError: a key is unknown, or says what KerasHub's layers don't compute.
    """
    model_type = config["model_type"]
    what = f"The {model_type} model {preset!r}"
    architecture = architectures.named(model_type) if isinstance(model_type, str) else None
    if architecture is None:
        raise ModelFormatError(
            f"{preset!r} has model_type={model_type!r}, and what its settings and tensors mean is known only of "
            f"{', '.join(architectures.names())}. If KerasHub has a preset of this model, name it instead."
        )
    known = architecture.config_rules
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not set(map(str, classes)) <= set(known.classes):
        raise ModelFormatError(
            f"{what} has architectures={classes!r}, which is no model that continues a text: that would be "
            f"{known.classes[0] if model_type == 'gpt2' else known.classes[1]!r}."
        )
    _check_code(what, config.get("auto_map"), known)
    _check_share(what, config, known)
    said = _without_aliases(what, {key: value for key, value in config.items() if key != "auto_map"}, known)
    positions = transformers_rotary.read(what, {**known.defaults, **said}, known)
    for key, value in said.items():
        _check(what, key, value, known)
    for key in known.sizes:
        if key not in said:
            raise ModelFormatError(f"{what} does not say its {key!r}. Complete its 'config.json'.")
        if not isinstance(said[key], int) or isinstance(said[key], bool) or said[key] < 1:
            raise ModelFormatError(f"{what} has {key}={said[key]!r}, which must be a whole number from 1.")
    complete = {key: value for key, value in known.defaults.items() if key not in said} | said | positions
    complete.setdefault("tie_word_embeddings", known.fixed.get("tie_word_embeddings", (False,))[0])
    if complete.get("num_key_value_heads", 0) is None:  # as in configurations from before there was such a key
        complete["num_key_value_heads"] = complete["num_attention_heads"]
    reason = known.further(complete)
    if reason:
        raise ModelFormatError(f"{what} has {reason}. {CHANGED}")
    return complete


def _check_code(what: str, auto_map: Any, known: ConfigRules) -> None:
    """Check that code beside the weights, which transformers leaves aside unless asked, is of the class that it has."""
    if auto_map is None or auto_map == {}:
        return
    named = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, dict) else auto_map
    if not isinstance(named, str) or named.rpartition(".")[2] not in known.classes:
        raise ModelFormatError(
            f"{what} has auto_map={auto_map!r}: it is computed by code of its own, which is not run. {CHANGED}"
        )


def _check_share(what: str, config: Mapping[str, Any], known: ConfigRules) -> None:
    """Check the share of a head that is rotated where transformers reads it under another name."""
    key, share = known.partial_rotary_key, config.get("partial_rotary_factor")
    if key in (None, "partial_rotary_factor") or known.rope_theta is None or share is None:
        return
    nested = [config.get(name) for name in ("rope_parameters", "rope_scaling")]
    taken = [
        part["partial_rotary_factor"] for part in nested if isinstance(part, dict) and "partial_rotary_factor" in part
    ]
    read = taken[0] if taken else config.get(key, known.partial_rotary_factor)
    if share != read:
        raise ModelFormatError(
            f"{what} has partial_rotary_factor={share!r}, which transformers passes over: it rotates {read!r} of each "
            f"head. Take it out of its 'config.json', or say it as {key!r}."
        )


def _check(what: str, key: str, value: Any, known: ConfigRules) -> None:
    if key == "quantization_config" and value is not None:
        method = value.get("quant_method", "a method that it does not name") if isinstance(value, Mapping) else value
        raise ModelFormatError(
            f"{what} has weights that are quantized by {method} (its 'quantization_config'), which are not read. Take "
            "the model that it was made from, in bfloat16, float16 or float32, or a GGUF file of it."
        )
    allowed = known.fixed.get(key, FIXED.get(key))
    if allowed is not None:
        if value not in allowed:
            raise ModelFormatError(
                f"{what} has {key}={value!r}; what is read is only {' or '.join(map(repr, allowed))}. {CHANGED}"
            )
    elif key in known.sizes or key in IRRELEVANT or key in known.irrelevant or key in known.aliases:
        pass
    elif key in known.defaults:
        listed = key in ("layer_types", "no_rope_layers", "mlp_only_layers")
        if isinstance(value, (list, dict)) and not (listed and isinstance(value, list)):
            raise ModelFormatError(f"{what} has {key}={value!r}, and KerasHub's layers have one value. {CHANGED}")
    elif value is not None and not (known.rope_theta is not None and key in _rotary_keys(known)):
        raise ModelFormatError(
            f"{what} has the setting {key}={value!r}, which is not known, so whether KerasHub's layers compute it is "
            "not either. If it changes nothing in what the model computes, take it out of the 'config.json'."
        )


def _rotary_keys(known: ConfigRules) -> tuple[str, ...]:
    by_kind = isinstance(known.rope_theta, Mapping)  # whose lengths transformers reads kind by kind
    return (*transformers_rotary.KEYS, transformers_rotary.LOCAL_BASE if by_kind else rotary_keys.ORIGINAL)


def _without_aliases(what: str, config: Mapping[str, Any], known: ConfigRules) -> dict[str, Any]:
    said = {key: value for key, value in config.items() if key not in known.aliases}
    for alias, key in known.aliases.items():
        if alias in config and said.setdefault(key, config[alias]) != config[alias]:
            raise ModelFormatError(
                f"{what} has {alias}={config[alias]!r} and {key}={said[key]!r}, which mean the same. Take one of them "
                "out of its 'config.json'."
            )
    return said
