"""The rotary positions that a `config.json` says, whichever version of transformers wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kerasgen.errors import ModelArgumentError, ModelFormatError
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.config_rules import ConfigRules

KEYS: Final = ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor")
LOCAL_BASE: Final = "rope_local_base_freq"
"""The base of layers with a window, as version 4 said it."""
CHANGED: Final = "It can't be read without changing what it says."


def read(what: str, said: Mapping[str, Any], known: ConfigRules) -> dict[str, Any]:
    """Return the settings that hold a configuration's rotary positions.

    Args:
        what: a model, for messages.
        said: its settings.
        known: the rules of its architecture.

    Returns:
        `gated.ROTARY`, positions by kind of layer. Empty if the architecture has no rotary positions.

    Raises:
        ModelFormatError: a key is missing, unknown or said twice, or has no counterpart.
    """
    if known.rope_theta is None:
        return {}
    found = {key: said[key] for key in ("rope_parameters", "rope_scaling") if said.get(key) is not None}
    for key, value in found.items():
        if not isinstance(value, dict):
            raise ModelFormatError(f"{what} has {key}={value!r}, which must be a JSON object.")
    if not found and known.rope_parameters:
        found = {"rope_parameters": known.rope_parameters}
    plain: dict[str, Any] = {key: said[key] for key in ("rope_theta", "partial_rotary_factor") if said.get(key)}
    written = next(iter(found), "rope_parameters")
    if not isinstance(known.rope_theta, Mapping):
        one = _merged(what, [plain, *found.values()])
        return _of_kind(what, one, known, known.rope_theta, "", written, said)
    by_kind: dict[str, Any] = {}
    for kind, theta in known.rope_theta.items():
        nested = found.get("rope_parameters", {}).get(kind) or {}
        if kind == gated.FULL:
            parts = [plain, found.get("rope_scaling", {}), nested]
        else:
            parts = [{"rope_theta": said[LOCAL_BASE]} if said.get(LOCAL_BASE) else {}, nested]
        by_kind |= _of_kind(what, _merged(what, parts), known, theta, kind, written, said)[gated.ROTARY]
    unknown = [kind for kind in found.get("rope_parameters", {}) if kind not in known.rope_theta]
    if unknown:
        raise ModelFormatError(
            f"{what} has rope_parameters of {unknown[0]!r}, which is no kind of its layers. {CHANGED}"
        )
    return {gated.ROTARY: by_kind}


def _merged(what: str, parts: list[Mapping[str, Any]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in ((key, value) for part in parts for key, value in part.items()):
        name = "rope_type" if key == "type" else key
        if given.setdefault(name, value) != value:
            raise ModelFormatError(
                f"{what} says both {name}={given[name]!r} and {name}={value!r} of its rotary positions. Take one of "
                "them out of its 'config.json'."
            )
    return given


def _of_kind(
    what: str,
    given: Mapping[str, Any],
    known: ConfigRules,
    theta: float,
    kind_of_layer: str,
    written: str,
    said: Mapping[str, Any],
) -> dict[str, Any]:
    """The positions of one kind of layer, under its name."""
    complete: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": theta,
        "partial_rotary_factor": known.partial_rotary_factor,
    }
    complete |= {key: value for key, value in given.items() if value is not None}
    kind = known.rope_aliases.get(complete["rope_type"], complete["rope_type"])
    if kind not in known.rope_types:
        raise ModelFormatError(
            f"{what} has {written} of the kind {complete['rope_type']!r}; what is read is only "
            f"{' or '.join(map(repr, known.rope_types))}. {CHANGED}"
        )
    share = complete["partial_rotary_factor"]
    if known.partial_rotary_key is None and share != 1:
        raise ModelFormatError(
            f"{what} has partial_rotary_factor={share!r}, and transformers rotates whole heads of it. {CHANGED}"
        )
    if kind == "yarn" and "factor" in given:
        complete["factor"] = given["factor"]  # None asks for the growth of the length
    required, optional = rotary_keys.KINDS[kind]
    plain = ("rope_type", "rope_theta", "partial_rotary_factor")
    unknown = [key for key in complete if key not in (*plain, *required, *optional)]
    if unknown:
        raise ModelFormatError(
            f"{what} has {unknown[0]}={complete[unknown[0]]!r} in its {written}, which rotary positions of the kind "
            f"{kind!r} don't have. {CHANGED}"
        )
    missing = [key for key in required if key not in complete and key not in said]
    if missing:
        raise ModelFormatError(f"{what} does not say the {missing[0]!r} of its {written}. Complete its 'config.json'.")
    beside = {key: said[key] for key in (*required, *optional) if said.get(key) is not None}
    try:
        positions = rotary_keys.read({**complete, **beside, "rope_type": kind}, said.get("max_position_embeddings"))
    except (ModelArgumentError, TypeError, ValueError) as cause:
        raise ModelFormatError(f"{what} has {written} that make no sense: {cause}") from cause
    return {gated.ROTARY: {kind_of_layer: positions}}
