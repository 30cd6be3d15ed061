"""Qwen 3 with experts. Source: Yang et al. 2025, "Qwen3 Technical Report", arXiv 2505.09388."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kerasgen.decoder.config import DecoderConfig, Experts, Norm
from kerasgen.models.architectures import gated, qwen3, rotary_keys
from kerasgen.models.architectures.base import Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules

EXPERTS = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")


def experts(settings: Mapping[str, Any], shared_dim: int = 0) -> Experts:
    """Return the experts that transformers' settings say: of each so-many-th layer, but for those that are named."""
    step, plain = settings["decoder_sparse_step"], settings["mlp_only_layers"] or []
    layers = tuple((n + 1) % step == 0 and n not in plain for n in range(settings["num_hidden_layers"]))
    return Experts(
        settings["num_experts"],
        settings["num_experts_per_tok"],
        normalize=bool(settings["norm_topk_prob"]),
        layers=() if all(layers) else layers,
        intermediate_dim=settings["moe_intermediate_size"],
        shared_dim=shared_dim,
        router_loss=float(settings["router_aux_loss_coef"]),
    )


def expert_keys(config: DecoderConfig) -> dict[str, Any]:
    """Return the keys of experts."""
    settings = config.feedforward.experts
    assert settings is not None
    return {
        "num_experts": settings.num_experts,
        "num_experts_per_tok": settings.experts_per_token,
        "norm_topk_prob": settings.normalize,
        "moe_intermediate_size": settings.intermediate_dim or config.feedforward.intermediate_dim,
        "decoder_sparse_step": 1,
        "mlp_only_layers": _plain(config),
        "router_aux_loss_coef": settings.router_loss,
    }


def expert_arguments(config: DecoderConfig) -> dict[str, Any]:
    """Return the arguments of experts that KerasHub's backbones of both Qwens take."""
    keys = expert_keys(config)
    return {
        "num_experts": keys["num_experts"],
        "top_k": keys["num_experts_per_tok"],
        "norm_top_k_prob": keys["norm_topk_prob"],
        "moe_intermediate_dim": keys["moe_intermediate_size"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": keys["mlp_only_layers"],
        "router_aux_loss_coefficient": keys["router_aux_loss_coef"],
        "rope_scaling_factor": rotary_keys.linear_factor(config.positions),
    }


def of_keras_hub(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return KerasHub's settings of such a backbone under transformers' names."""
    return gated.of_keras_hub(settings) | {
        "num_experts": settings["num_experts"],
        "num_experts_per_tok": settings["top_k"],
        "norm_topk_prob": settings["norm_top_k_prob"],
        "moe_intermediate_size": settings["moe_intermediate_dim"],
        "decoder_sparse_step": settings["decoder_sparse_step"],
        "mlp_only_layers": settings["mlp_only_layers"],
        "router_aux_loss_coef": settings["router_aux_loss_coefficient"],
    }


def _plain(config: DecoderConfig) -> list[int]:
    return [layer for layer in range(config.num_layers) if not config.has_experts(layer)]


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    """Every layer has the window, if one is used."""
    window = settings["sliding_window"] if settings["use_sliding_window"] else None
    norm = Norm("rms", float(settings["rms_norm_eps"]), bias=False)
    windows = (window,) * settings["num_hidden_layers"]
    config = gated.read("qwen3_moe", settings, query_key_norm=norm, windows=windows)
    return replace(config, feedforward=replace(config.feedforward, experts=experts(settings)))


def _describe(settings: Mapping[str, Any]) -> DecoderConfig:
    window = settings["sliding_window_size"]
    config = _read(of_keras_hub(settings) | {"sliding_window": window, "use_sliding_window": window is not None})
    norm = Norm("rms", 1e-6, bias=False)  # whatever the others have
    return replace(config, attention=replace(config.attention, query_key_norm=norm))


def _keys(config: DecoderConfig) -> dict[str, Any]:
    window = gated.common_window(config)
    return {
        "hidden_act": gated.activation(config),
        "attention_bias": config.attention.query_bias,
        "sliding_window": window,
        "use_sliding_window": window is not None,
        **expert_keys(config),
        **rotary_keys.write(config),
    }


DEFAULTS = {"decoder_sparse_step": 1, "mlp_only_layers": None, "norm_topk_prob": False, "router_aux_loss_coef": 0.001}
BANK = "mlp.expert_bank._expert_feedforward"
EXPERT_PARTS = (
    Part("router", "mlp._sparse_feedforward_gate_dense", "mlp.gate", "ffn_gate_inp"),
    Part("gate", f"{BANK}_gate_dense", "mlp.experts.{}.gate_proj", "ffn_gate_exps"),
    Part("up", f"{BANK}_gate_dense", "mlp.experts.{}.up_proj", "ffn_up_exps"),
    Part("down", f"{BANK}_output_dense", "mlp.experts.{}.down_proj", "ffn_down_exps"),
)
DENSE_PARTS = (
    Part("gate", "mlp._feedforward_gate_dense", "mlp.gate_proj", "ffn_gate"),
    Part("up", "mlp._feedforward_intermediate_dense", "mlp.up_proj", "ffn_up"),
    Part("down", "mlp._feedforward_output_dense", "mlp.down_proj", "ffn_down"),
)
"""KerasHub holds an expert's gate and the other factor in one kernel."""
TOGETHER = {
    "gate": "mlp.experts.gate_up_proj",
    "up": "mlp.experts.gate_up_proj",
    "down": "mlp.experts.down_proj",
}

ARCHITECTURE = replace(
    qwen3.ARCHITECTURE,
    name="qwen3_moe",
    layer_parts=(*(part for part in gated.LAYER_PARTS if part.name not in ("gate", "up", "down")), *EXPERT_PARTS),
    dense_parts=DENSE_PARTS,
    read_config=_read,
    further_keys=_keys,
    config_rules=ConfigRules(
        "Qwen3Moe",
        sizes=(*SIZES, *EXPERTS),
        defaults={
            **{"num_key_value_heads": 4, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"attention_bias": False, "hidden_act": "silu", "max_position_embeddings": None},
            **{"use_sliding_window": False, "sliding_window": 4096, **DEFAULTS},
        },
        fixed=gated.FIXED,
        irrelevant=("max_window_layers",),
        aliases={"num_local_experts": "num_experts"},
        rope_theta=10_000.0,
    ),
    transformers_class="Qwen3MoeForCausalLM",
    transformers_experts=TOGETHER,
    gguf="qwen3moe",
    gguf_settings=lambda settings, tensors: {"norm_topk_prob": True, "use_sliding_window": False},
    backbone="Qwen3MoeBackbone",
    describe=_describe,
    further_arguments=lambda config: {"sliding_window_size": gated.common_window(config), **expert_arguments(config)},
    layer="Qwen3MoeTransformerDecoder",
)
