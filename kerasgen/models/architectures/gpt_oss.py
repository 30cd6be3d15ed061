"""GPT-OSS. Source: OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", arXiv 2508.10925."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kerasgen.decoder.config import ClampedGate, DecoderConfig, Experts, RotaryPositions
from kerasgen.decoder.rotary_scaling import YarnScaling
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules

_LENGTH = 4096  # that KerasHub's rotary positions are of


def _read(settings: Mapping[str, Any], **further: Any) -> DecoderConfig:
    """Windows in every other layer; sinks; experts with biases, and gates of bounded values."""
    kinds = [gated.FULL if n % 2 else gated.SLIDING for n in range(settings["num_hidden_layers"])]
    config = gated.read("gpt_oss", settings, windows=gated.windows_of(settings, kinds), **further)
    experts = Experts(
        settings["num_local_experts"],
        settings["num_experts_per_tok"],
        router_bias=True,
        router_loss=float(settings["router_aux_loss_coef"]),
    )
    part = replace(
        config.feedforward,
        up_bias=True,
        down_bias=True,
        experts=experts,
        clamped_gate=ClampedGate(float(settings["swiglu_alpha"]), float(settings["swiglu_limit"])),
    )
    return replace(config, feedforward=part, attention=replace(config.attention, sinks=True))


def _describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """KerasHub's windows are those of the other layers, and let a token see one more; its routers have no loss."""
    scaling = YarnScaling(float(settings["rope_scaling_factor"]), _LENGTH, truncate=False)
    transformers_settings = {
        **gated.of_keras_hub(settings),
        "num_local_experts": settings["num_experts"],
        "num_experts_per_tok": settings["top_k"],
        "router_aux_loss_coef": 0.0,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
        "attention_bias": True,
        "sliding_window": settings["sliding_window"] + 1 if settings["sliding_window"] else None,
        "layer_types": [
            gated.SLIDING if n % 2 and settings["sliding_window"] else gated.FULL for n in range(settings["num_layers"])
        ],
    }
    return _read(
        transformers_settings, positions=RotaryPositions(float(settings["rope_max_wavelength"]), scaling=scaling)
    )


def _keys(config: DecoderConfig) -> dict[str, Any]:
    part = config.feedforward
    assert part.experts is not None
    assert part.clamped_gate is not None
    if part.experts.intermediate_dim is not None:
        raise ModelArgumentError("GPT-OSS has one width of experts, `intermediate_size`.")
    return {
        "hidden_act": gated.activation(config),
        "attention_bias": config.attention.query_bias,
        "num_local_experts": part.experts.num_experts,
        "num_experts_per_tok": part.experts.experts_per_token,
        "router_aux_loss_coef": part.experts.router_loss,
        "swiglu_alpha": part.clamped_gate.alpha,
        "swiglu_limit": part.clamped_gate.limit,
        **gated.layer_types(config),
        # Where nothing is said, transformers' class scales them.
        **{key: said or {"rope_type": "default"} for key, said in rotary_keys.write(config).items()},
    }


def _further_arguments(config: DecoderConfig) -> dict[str, Any]:
    window = next((window for window in config.attention.windows if window), None)
    scaling = config.positions.scaling if isinstance(config.positions, RotaryPositions) else None
    return {
        "sliding_window": window - 1 if window else None,
        "rope_scaling_factor": scaling.factor if isinstance(scaling, YarnScaling) else 1.0,
    }


_ATTENTION, _EXPERTS = "self_attention_layer", "sparse_moe_block.experts"

ARCHITECTURE = Architecture(
    name="gpt_oss",
    parts=gated.PARTS,
    layer_parts=(
        Part("attention_norm", "input_layernorm", "input_layernorm", "attn_norm"),
        Part("query", f"{_ATTENTION}.query_dense", "self_attn.q_proj", "attn_q"),
        Part("key", f"{_ATTENTION}.key_dense", "self_attn.k_proj", "attn_k"),
        Part("value", f"{_ATTENTION}.value_dense", "self_attn.v_proj", "attn_v"),
        Part("sinks", f"{_ATTENTION}.sinks", "self_attn.sinks", "attn_sinks"),
        Part("output", f"{_ATTENTION}.output_dense", "self_attn.o_proj", "attn_output"),
        Part("feedforward_norm", "post_attention_layernorm", "post_attention_layernorm", "post_attention_norm"),
        Part("router", "sparse_moe_block.router.router_dense", "mlp.router", "ffn_gate_inp"),
        Part("gate", f"{_EXPERTS}.gate_up_proj", "mlp.experts.gate_up_proj", "ffn_gate_exps"),
        Part("up", f"{_EXPERTS}.gate_up_proj", "mlp.experts.gate_up_proj", "ffn_up_exps"),
        Part("down", f"{_EXPERTS}.down_proj", "mlp.experts.down_proj", "ffn_down_exps"),
    ),
    read_config=_read,
    keys=gated.KEYS,
    further_keys=_keys,
    config_rules=ConfigRules(
        "GptOss",
        sizes=(*SIZES, "num_local_experts", "num_experts_per_tok"),
        defaults={
            **{"num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "rms_norm_eps": 1e-5},
            **{"tie_word_embeddings": False, "hidden_act": "silu", "max_position_embeddings": None},
            **{"layer_types": None, "attention_bias": True, "swiglu_alpha": 1.702, "swiglu_limit": 7.0},
            "router_aux_loss_coef": 0.001,
        },
        fixed={"hidden_act": ("silu", "swish"), "mlp_bias": (False, True)},
        irrelevant=("experts_per_token", "initial_context_length"),
        aliases={"num_experts": "num_local_experts"},
        rope_theta=150_000.0,
        rope_parameters={
            **{"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
            "original_max_position_embeddings": _LENGTH,
        },
    ),
    transformers_class="GptOssForCausalLM",
    not_in_gguf=(
        "llama.cpp rounds the bounds between which rotary positions are scaled (YaRN) to whole dimensions, and GPT-OSS "
        "has them unrounded, so that a GGUF file would compute something else"
    ),
    transformers_prefixes=("model.",),
    transformers_expert_kernels="in_out",
    transformers_gate_in_turn=True,
    transformers_ignored=gated.IGNORED,
    backbone="GptOssBackbone",
    describe=_describe,
    arguments=gated.ARGUMENTS
    | {
        "head_dim": "attention.head_dim",
        "num_experts": "feedforward.experts.num_experts",
        "top_k": "feedforward.experts.experts_per_token",
    },
    further_arguments=_further_arguments,
    keras_gate_in_turn=True,
    layer="GptOssTransformerDecoder",
)
