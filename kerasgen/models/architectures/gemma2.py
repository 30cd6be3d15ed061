"""Gemma 2. Source: Gemma Team 2024, "Gemma 2: Improving Open Language Models at a Practical Size", arXiv 2408.00118."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.architectures import gated, gemma, rotary_keys
from kerasgen.models.architectures.base import Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules


def read(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from transformers' settings: the first layer and every other has a window."""
    kinds = [gated.FULL if n % 2 else gated.SLIDING for n in range(settings["num_hidden_layers"])]
    return gemma.read(
        "gemma2",
        settings,
        soft_cap=settings["attn_logit_softcapping"],
        windows=gated.windows_of(settings, kinds),
        norm_placement="before_and_after",
        logit_soft_cap=settings["final_logit_softcapping"],
    )


def keys(config: DecoderConfig) -> dict[str, Any]:
    """Return further keys of a Gemma 2 or 3."""
    scalar = round(config.attention.score_scale**-2, 6)
    return {
        **gemma.keys(config),
        **gated.layer_types(config),
        "query_pre_attn_scalar": int(scalar) if scalar.is_integer() else scalar,  # transformers asks for a whole number
        "final_logit_softcapping": config.logit_soft_cap,
    }


def query_scalar(settings: Mapping[str, Any], largest: int) -> int:
    """Return what llama.cpp scales queries by: in the largest model by the width over its heads."""
    head_dim = int(settings["head_dim"])
    share = settings["hidden_size"] // settings["num_attention_heads"]
    return share if settings["num_hidden_layers"] == largest else head_dim


_PARTS: Final = (
    Part("attention_post_norm", "post_attention_norm", "post_attention_layernorm", "post_attention_norm"),
    Part("feedforward_norm", "pre_ffw_norm", "pre_feedforward_layernorm", "ffn_norm"),
    Part("feedforward_post_norm", "post_ffw_norm", "post_feedforward_layernorm", "post_ffw_norm"),
)
LAYER_PARTS: Final = (*(part for part in gemma.LAYER_PARTS if part.name != "feedforward_norm"), *_PARTS)

DEFAULTS: Final = {
    **{"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 4096},
    **{"tie_word_embeddings": True, "attention_bias": False, "hidden_activation": "gelu_pytorch_tanh"},
    **{"layer_types": None, "max_position_embeddings": None},
}

ARCHITECTURE = replace(
    gemma.ARCHITECTURE,
    name="gemma2",
    layer_parts=LAYER_PARTS,
    read_config=read,
    further_keys=lambda config: {
        **keys(config),
        "attn_logit_softcapping": config.attention.soft_cap,
        **rotary_keys.write(config),
    },
    config_rules=ConfigRules(
        "Gemma2",
        sizes=(*SIZES, "head_dim"),
        defaults={**DEFAULTS, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        fixed={**gemma.FIXED, "hidden_act": ("gelu_pytorch_tanh",)},
        rope_theta=10_000.0,
    ),
    transformers_class="Gemma2ForCausalLM",
    gguf="gemma2",
    gguf_settings=lambda settings, tensors: {"query_pre_attn_scalar": query_scalar(settings, 46)},
)
