"""Qwen 1.5 and 2 with experts. Source: Yang et al. 2024, "Qwen2 Technical Report", arXiv 2407.10671."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.architectures import gated, mixtral, qwen2, qwen3_moe, rotary_keys
from kerasgen.models.architectures.base import Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules


def _windows(settings: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Every other layer has one, of the first `max_window_layers`, where windows are used."""
    has_windows, first = settings["use_sliding_window"], settings["max_window_layers"]
    layers = range(settings["num_hidden_layers"])
    kinds = [gated.SLIDING if has_windows and n % 2 == 0 and n < first else gated.FULL for n in layers]
    return gated.windows_of({**settings, "sliding_window": settings["sliding_window"] if has_windows else None}, kinds)


def _read(settings: Mapping[str, Any], windows: tuple[int | None, ...] | None = None) -> DecoderConfig:
    """Beside the experts each token goes through one that all share."""
    windows = _windows(settings) if windows is None else windows
    config = gated.read("qwen2_moe", settings, bias=bool(settings["qkv_bias"]), windows=windows)
    experts = qwen3_moe.experts(settings, settings["shared_expert_intermediate_size"])
    return replace(config, feedforward=replace(config.feedforward, experts=experts))


def _describe(settings: Mapping[str, Any]) -> DecoderConfig:
    window = settings["sliding_window_size"] if settings["use_sliding_window_attention"] else None
    shared = settings["shared_expert_intermediate_dim"]
    transformers_settings = qwen3_moe.of_keras_hub(settings) | {
        "shared_expert_intermediate_size": shared,
        "qkv_bias": True,
    }
    return _read(transformers_settings, (window,) * settings["num_layers"])


def _keys(config: DecoderConfig) -> dict[str, Any]:
    experts = config.feedforward.experts
    assert experts is not None
    return {
        "hidden_act": gated.activation(config),
        "qkv_bias": config.attention.query_bias,
        "shared_expert_intermediate_size": experts.shared_dim,
        **qwen2.window_keys(config),
        **qwen3_moe.expert_keys(config),
        **rotary_keys.write(config),
    }


def _further_arguments(config: DecoderConfig) -> dict[str, Any]:
    experts = config.feedforward.experts
    assert experts is not None
    return {
        "use_sliding_window_attention": gated.common_window(config) is not None,
        "sliding_window_size": gated.common_window(config) or 4096,
        "shared_expert_intermediate_dim": experts.shared_dim,
        **qwen3_moe.expert_arguments(config),
    }


_SHARED, _OWN = "mlp.shared_expert_dense._feedforward", "mlp.shared_expert"
_NOT_HERE = ("gate", "up", "down", "router", "output")

ARCHITECTURE = replace(
    qwen3_moe.ARCHITECTURE,
    name="qwen2_moe",
    layer_parts=(
        *(part for part in mixtral.ARCHITECTURE.layer_parts if part.name not in _NOT_HERE),
        Part("output", "_self_attention_layer._output_dense", "self_attn.o_proj", "attn_output"),
        *qwen3_moe.EXPERT_PARTS,
        Part("shared_router", "mlp.shared_expert_gate_dense", "mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
        Part("shared_gate", f"{_SHARED}_gate_dense", f"{_OWN}.gate_proj", "ffn_gate_shexp"),
        Part("shared_up", f"{_SHARED}_intermediate_dense", f"{_OWN}.up_proj", "ffn_up_shexp"),
        Part("shared_down", f"{_SHARED}_output_dense", f"{_OWN}.down_proj", "ffn_down_shexp"),
    ),
    read_config=_read,
    further_keys=_keys,
    config_rules=ConfigRules(
        "Qwen2Moe",
        sizes=(*SIZES, *qwen3_moe.EXPERTS, "shared_expert_intermediate_size"),
        defaults={
            **{"num_key_value_heads": 16, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"qkv_bias": True, "hidden_act": "silu", "max_position_embeddings": None},
            **{**qwen2.WINDOW_DEFAULTS, **qwen3_moe.DEFAULTS},
        },
        fixed=gated.FIXED,
        rope_theta=10_000.0,
    ),
    transformers_class="Qwen2MoeForCausalLM",
    gguf="qwen2moe",
    gguf_settings=lambda settings, tensors: {"norm_topk_prob": False, "use_sliding_window": False},
    backbone="QwenMoeBackbone",
    describe=_describe,
    arguments=gated.ARGUMENTS | {"tie_word_embeddings": "tied_head"},
    further_arguments=_further_arguments,
    layer="QwenMoeTransformerDecoder",
)
