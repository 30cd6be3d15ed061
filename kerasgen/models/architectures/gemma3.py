"""Gemma 3, its text model. Source: Gemma Team 2025, "Gemma 3 Technical Report", arXiv 2503.19786."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kerasgen.decoder.config import DecoderConfig, Norm, RotaryPositions
from kerasgen.decoder.rotary_scaling import LinearScaling
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures import gated, gemma, gemma2, rotary_keys
from kerasgen.models.architectures.base import Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules

_LOCAL, _GLOBAL = 10_000.0, 1_000_000.0


def _read(settings: Mapping[str, Any], *, has_norms: bool = True, **further: Any) -> DecoderConfig:
    """Return the description: five layers with a window, then one without; each kind has its own rotary positions."""
    every = settings.get("sliding_window_pattern") or 6
    kinds = [gated.FULL if n % every == every - 1 else gated.SLIDING for n in range(settings["num_hidden_layers"])]
    windows, by_kind = gated.windows_of(settings, kinds), settings[gated.ROTARY]
    norm = Norm("rms_plus_one", float(settings["rms_norm_eps"]), bias=False)
    return gemma.read(
        "gemma3_text",
        settings,
        windows=windows,
        query_key_norm=norm if has_norms else None,
        positions=by_kind[gated.FULL],
        positions_by_layer=tuple(by_kind[gated.SLIDING if window else gated.FULL] for window in windows),
        **{"norm_placement": "before_and_after", "logit_soft_cap": settings["final_logit_softcapping"], **further},
    )


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone.

    Raises:
        ModelArgumentError: it is no decoder of texts alone.
    """
    if settings["vision_encoder"] or settings["use_bidirectional_attention"] or settings["is_embedding_model"]:
        raise ModelArgumentError("This Gemma 3 reads images, or is made for embeddings.")
    layers, size = settings["num_layers"], settings["sliding_window_size"]
    has_windows = settings["use_sliding_window_attention"]
    by_kind = {
        gated.SLIDING: _turned(_LOCAL, settings["local_rope_scaling_factor"]),
        gated.FULL: _turned(_GLOBAL, settings["global_rope_scaling_factor"]),
    }
    renamed = gemma.of_keras_hub(settings) | {
        "sliding_window": size,
        "final_logit_softcapping": settings["final_logit_soft_cap"],
        "layer_types": None if has_windows else [gated.FULL] * layers,
        gated.ROTARY: by_kind,
    }
    placement = "before_and_after" if settings["use_post_attention_norm"] else "before"
    has_norms, cap = settings["use_query_key_norm"], settings["attention_logit_soft_cap"]
    return _read(renamed, has_norms=has_norms, norm_placement=placement, soft_cap=cap)


def _turned(base: float, factor: float) -> RotaryPositions:
    return RotaryPositions(base, scaling=None if factor == 1.0 else LinearScaling(float(factor)))


def _local(config: DecoderConfig) -> RotaryPositions:
    """Return the positions of layers with a window; of all layers, where none has one."""
    of_layers = zip(config.attention.windows, config.positions_by_layer, strict=False)
    rotary_positions = next((positions for window, positions in of_layers if window), RotaryPositions(_LOCAL))
    assert isinstance(rotary_positions, RotaryPositions)
    return rotary_positions


def _keys(config: DecoderConfig) -> dict[str, Any]:
    """Return the keys of `config.json` beside sizes.

    Raises:
        ModelArgumentError: the positions of layers with a window are scaled, which has no key.
    """
    if _local(config).scaling is not None:
        raise ModelArgumentError("The rotary positions of layers with a window have no key for their scaling.")
    return {**gemma2.keys(config), **rotary_keys.write(config), "rope_local_base_freq": _local(config).base}


def _arguments(config: DecoderConfig) -> dict[str, Any]:
    nothing_else = {"vision_encoder": None, "use_bidirectional_attention": False, "is_embedding_model": False}
    of_all = {**gemma.arguments(config), **nothing_else, "image_size": 896, "use_query_key_norm": True}
    scaled = {"local": _local(config), "global": config.positions}
    factors = {f"{kind}_rope_scaling_factor": rotary_keys.linear_factor(turned) for kind, turned in scaled.items()}
    return of_all | factors


_NORMS: Final = (
    Part("query_norm", "attention.query_norm", "self_attn.q_norm", "attn_q_norm"),
    Part("key_norm", "attention.key_norm", "self_attn.k_norm", "attn_k_norm"),
)

ARCHITECTURE = replace(
    gemma2.ARCHITECTURE,
    name="gemma3_text",
    layer_parts=(*gemma2.LAYER_PARTS, *_NORMS),
    read_config=_read,
    further_keys=_keys,
    config_rules=ConfigRules(
        "Gemma3",
        sizes=(*SIZES, "head_dim"),
        defaults={
            **gemma2.DEFAULTS,
            **{"final_logit_softcapping": None, "sliding_window_pattern": None, "_sliding_window_pattern": None},
        },
        # transformers keeps the last one and computes without it.
        fixed={**gemma.FIXED, "hidden_act": ("gelu_pytorch_tanh",), "attn_logit_softcapping": (None,)},
        rope_theta={gated.FULL: _GLOBAL, gated.SLIDING: _LOCAL},
    ),
    transformers_class="Gemma3ForCausalLM",
    gguf="gemma3",
    gguf_settings=lambda settings, tensors: {"query_pre_attn_scalar": gemma2.query_scalar(settings, 62)},
    backbone="Gemma3Backbone",
    describe=describe,
    further_arguments=_arguments,
    layer="Gemma3DecoderBlock",
)
