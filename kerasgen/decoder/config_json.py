"""A decoder's description as JSON could hold it, and back. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, get_args

from kerasgen.decoder import config as parts
from kerasgen.decoder import rotary_scaling
from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ModelArgumentError, ModelFormatError

_CLASSES: Final[dict[str, type]] = {
    kind.__name__: kind
    for kind in (
        *(parts.DecoderConfig, parts.Attention, parts.FeedForward, parts.Experts, parts.ClampedGate, parts.Norm),
        *get_args(parts.Positions),
        *get_args(rotary_scaling.RotaryScaling),
    )
}


def to_json(config: DecoderConfig) -> dict[str, Any]:
    """Return a description as dictionaries, lists and plain values; each dictionary names its class under `class`."""
    encoded: dict[str, Any] = _encoded(config)
    return encoded


def from_json(value: Any) -> DecoderConfig:
    """Return the description that `to_json` made this of.

    Raises:
        ModelFormatError: it is none, or one that can't be.
    """
    try:
        config = _decoded(value)
    except (ModelArgumentError, TypeError, KeyError) as cause:
        raise ModelFormatError(f"The description of the decoder can't be read: {cause}") from cause
    if not isinstance(config, DecoderConfig):
        raise ModelFormatError(f"The description of the decoder is none. Received: {value!r:.80}.")
    return config


def _encoded(value: Any) -> Any:
    if is_dataclass(value):
        return {"class": type(value).__name__} | {
            field.name: _encoded(getattr(value, field.name)) for field in fields(value)
        }
    return [_encoded(each) for each in value] if isinstance(value, tuple) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        given = {str(name): _decoded(each) for name, each in value.items() if name != "class"}
        return _CLASSES[value["class"]](**given)
    return tuple(map(_decoded, value)) if isinstance(value, list) else value
