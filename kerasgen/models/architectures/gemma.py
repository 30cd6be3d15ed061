"""Gemma. Source: Gemma Team 2024, "Gemma: Open Models Based on Gemini Research and Technology", arXiv 2403.08295."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules

EPSILON: Final = 1e-6  # of KerasHub's layers, whatever its backbone says


def read(name: str, settings: Mapping[str, Any], **further: Any) -> DecoderConfig:
    """Return the description of a decoder: embeddings are scaled by the root of the width, norms by 1 + w."""
    scalar = settings.get("query_pre_attn_scalar")
    head_dim = gated.head_dim(settings)
    return gated.read(
        name,
        {**settings, "activation": settings.get("hidden_activation") or "gelu_pytorch_tanh"},
        norm="rms_plus_one",
        scale=None if scalar in (None, head_dim) else float(scalar**-0.5),
        activation="activation",
        embedding_scale=float(settings["hidden_size"] ** 0.5),
        **further,
    )


def of_keras_hub(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return KerasHub's settings of a Gemma of any kind under transformers' names.

    Its layers scale queries by the size of a head, whatever `query_head_dim_normalize` says.

    Raises:
        ModelArgumentError: only one of the two norms behind attention and feed-forward part is there.
    """
    if settings["use_post_ffw_norm"] != settings["use_post_attention_norm"]:
        raise ModelArgumentError("One part of each layer has a norm behind it, and the other has none.")
    renamed = gated.of_keras_hub({**settings, "tie_word_embeddings": True, "layer_norm_epsilon": EPSILON})
    return renamed | {gated.ROTARY: {"": RotaryPositions()}}


def arguments(config: DecoderConfig) -> dict[str, Any]:
    """Return arguments of KerasHub's backbone of a Gemma of any kind."""
    has_more_norms = config.norm_placement == "before_and_after"
    windows = [window for window in config.attention.windows if window is not None]
    return {
        "use_post_ffw_norm": has_more_norms,
        "use_post_attention_norm": has_more_norms,
        "attention_logit_soft_cap": config.attention.soft_cap,
        "final_logit_soft_cap": config.logit_soft_cap,
        "use_sliding_window_attention": bool(windows),
        "sliding_window_size": windows[0] if windows else 4096,
    }


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone, which is Gemma 2's as well."""
    has_windows, size = settings["use_sliding_window_attention"], settings["sliding_window_size"]
    has_more_norms = settings["use_post_attention_norm"]
    return read(
        "gemma2" if has_more_norms else "gemma",
        of_keras_hub({**settings, "intermediate_dim": settings["intermediate_dim"] // 2}),
        soft_cap=settings["attention_logit_soft_cap"],
        windows=tuple(size if has_windows and n % 2 == 0 else None for n in range(settings["num_layers"])),
        norm_placement="before_and_after" if has_more_norms else "before",
        logit_soft_cap=settings["final_logit_soft_cap"],
    )


PARTS: Final = gated.PARTS
LAYER_PARTS: Final = (
    Part("attention_norm", "pre_attention_norm", "input_layernorm", "attn_norm"),
    Part("query", "attention.query_dense", "self_attn.q_proj", "attn_q"),
    Part("key", "attention.key_dense", "self_attn.k_proj", "attn_k"),
    Part("value", "attention.value_dense", "self_attn.v_proj", "attn_v"),
    Part("output", "attention.output_dense", "self_attn.o_proj", "attn_output"),
    Part("feedforward_norm", "pre_ffw_norm", "post_attention_layernorm", "ffn_norm"),
    Part("gate", "gating_ffw", "mlp.gate_proj", "ffn_gate"),
    Part("up", "gating_ffw_2", "mlp.up_proj", "ffn_up"),
    Part("down", "ffw_linear", "mlp.down_proj", "ffn_down"),
)
ARGUMENTS: Final = {name: path for name, path in gated.ARGUMENTS.items() if name != "rope_max_wavelength"} | {
    "head_dim": "attention.head_dim"
}
FIXED: Final = {"use_bidirectional_attention": (None, False)}


def keys(config: DecoderConfig) -> dict[str, Any]:
    """Return further keys of a Gemma of any kind."""
    return {
        "hidden_activation": gated.activation(config),
        "attention_bias": config.attention.query_bias,
    }


ARCHITECTURE = Architecture(
    name="gemma",
    parts=PARTS,
    layer_parts=LAYER_PARTS,
    read_config=lambda settings: read("gemma", settings),
    keys=gated.KEYS,
    further_keys=lambda config: {**keys(config), "hidden_act": gated.activation(config), **rotary_keys.write(config)},
    config_rules=ConfigRules(
        "Gemma",
        sizes=(*SIZES, "head_dim"),
        defaults={
            **{"num_key_value_heads": 16, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "attention_bias": False},
            **{"hidden_activation": None, "max_position_embeddings": None},
        },
        # The first files say "gelu", and the approximate form was meant: transformers takes it so.
        fixed={**FIXED, "hidden_act": ("gelu_pytorch_tanh", "gelu"), "hidden_activation": ("gelu_pytorch_tanh", None)},
        rope_theta=10_000.0,
    ),
    transformers_class="GemmaForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    gguf="gemma",
    backbone="GemmaBackbone",
    describe=describe,
    arguments=ARGUMENTS,
    # Its number is of gate and other product together.
    further_arguments=lambda config: {**arguments(config), "intermediate_dim": 2 * config.feedforward.intermediate_dim},
    layer="GemmaDecoderBlock",
    heads_first=True,
)
