"""Mixtral, Mistral with experts. Source: Jiang et al. 2024, "Mixtral of Experts", arXiv 2401.04088."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kerasgen.decoder.config import DecoderConfig, Experts
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures import gated, mistral, rotary_keys
from kerasgen.models.architectures.base import Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    """Every layer has experts, whose weights sum to 1."""
    windows = (settings["sliding_window"],) * settings["num_hidden_layers"]
    config = gated.read("mixtral", settings, windows=windows)
    loss = float(settings["router_aux_loss_coef"])
    experts = Experts(settings["num_local_experts"], settings["num_experts_per_tok"], router_loss=loss)
    return replace(config, feedforward=replace(config.feedforward, experts=experts))


def _describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone.

    Raises:
        ModelArgumentError: its routers read noise while they are trained.
    """
    if settings.get("router_jitter_noise"):
        raise ModelArgumentError(f"Its routers have router_jitter_noise={settings['router_jitter_noise']}.")
    further = {"sliding_window": settings["sliding_window"], "num_local_experts": settings["num_experts"]}
    further |= {"num_experts_per_tok": settings["top_k"], "router_aux_loss_coef": settings["router_aux_loss_coef"]}
    return _read(gated.of_keras_hub(settings) | further)


_KEYS = {
    "num_local_experts": "feedforward.experts.num_experts",
    "num_experts_per_tok": "feedforward.experts.experts_per_token",
    "router_aux_loss_coef": "feedforward.experts.router_loss",
}
_BLOCK, _BANK = "_sparse_moe_block", "_sparse_moe_block.expert_bank._expert_feedforward"
_ATTENTION = "_self_attention_layer"

ARCHITECTURE = replace(
    mistral.ARCHITECTURE,
    name="mixtral",
    layer_parts=(
        Part("attention_norm", "_self_attention_layernorm", "input_layernorm", "attn_norm"),
        Part("query", f"{_ATTENTION}.query_dense", "self_attn.q_proj", "attn_q"),
        Part("key", f"{_ATTENTION}.key_dense", "self_attn.k_proj", "attn_k"),
        Part("value", f"{_ATTENTION}.value_dense", "self_attn.v_proj", "attn_v"),
        Part("output", f"{_ATTENTION}.output_dense", "self_attn.o_proj", "attn_output"),
        Part("feedforward_norm", "_feedforward_layernorm", "post_attention_layernorm", "ffn_norm"),
        Part("router", f"{_BLOCK}._sparse_feedforward_gate_dense", "block_sparse_moe.gate", "ffn_gate_inp"),
        Part("gate", f"{_BANK}_gate_dense", "block_sparse_moe.experts.{}.w1", "ffn_gate_exps"),
        Part("up", f"{_BANK}_intermediate_dense", "block_sparse_moe.experts.{}.w3", "ffn_up_exps"),
        Part("down", f"{_BANK}_output_dense", "block_sparse_moe.experts.{}.w2", "ffn_down_exps"),
    ),
    read_config=_read,
    keys=gated.KEYS | _KEYS,
    config_rules=ConfigRules(
        "Mixtral",
        sizes=(*SIZES, "num_local_experts", "num_experts_per_tok"),
        defaults={
            **{"num_key_value_heads": 8, "head_dim": None, "sliding_window": None, "rms_norm_eps": 1e-5},
            **{"tie_word_embeddings": False, "hidden_act": "silu", "max_position_embeddings": None},
            "router_aux_loss_coef": 0.001,
        },
        fixed={**gated.FIXED, "attention_bias": (False,), "mlp_bias": (False,), "layer_types": (None,)},
        irrelevant=("router_jitter_noise",),
        aliases={"num_experts": "num_local_experts"},
        rope_theta=1_000_000.0,
    ),
    transformers_class="MixtralForCausalLM",
    transformers_experts={
        "router": "mlp.gate",
        "gate": "mlp.experts.gate_up_proj",
        "up": "mlp.experts.gate_up_proj",
        "down": "mlp.experts.down_proj",
    },
    backbone="MixtralBackbone",
    describe=_describe,
    arguments=gated.ARGUMENTS
    | {
        "num_experts": "feedforward.experts.num_experts",
        "top_k": "feedforward.experts.experts_per_token",
        "router_aux_loss_coef": "feedforward.experts.router_loss",
    },
    further_arguments=lambda config: {
        "sliding_window": gated.common_window(config),
        "rope_scaling_factor": rotary_keys.linear_factor(config.positions),
    },
    layer="MixtralTransformerDecoder",
)
