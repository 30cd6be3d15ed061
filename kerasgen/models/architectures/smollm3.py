"""SmolLM3. Source: Bakouch et al. 2025, "SmolLM3: smol, multilingual, long-context reasoner"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig, NoPositions, RotaryPositions
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules

_BASE = "rope_max_wavelength"


def _read(settings: Mapping[str, Any], **further: Any) -> DecoderConfig:
    """Return the description: every fourth layer, or each that the settings name, has no positions."""
    layers, every = range(settings["num_hidden_layers"]), settings.get("no_rope_layer_interval", 4)
    rotates = settings["no_rope_layers"] or [(n + 1) % every != 0 for n in layers]  # 1 where a layer has positions
    window = settings.get("sliding_window") if settings.get("use_sliding_window") else None
    kinds = [gated.FULL if has_rope or window is None else gated.SLIDING for has_rope in rotates]
    turned, none = settings[gated.ROTARY][""], NoPositions()
    return gated.read(
        "smollm3",
        settings,
        windows=gated.windows_of({**settings, "sliding_window": window}, kinds),
        positions_by_layer=() if all(rotates) else tuple(turned if has_rope else none for has_rope in rotates),
        **further,
    )


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone, whose output has no bias."""
    positions = RotaryPositions(float(settings["rope_theta"]), float(settings["partial_rotary_factor"]))
    renamed = gated.of_keras_hub({**settings, "num_query_heads": settings["num_attention_heads"]})
    renamed |= {"mlp_bias": settings["mlp_bias"], "no_rope_layers": settings["rope_layer_enabled_list"]}
    return _read(
        renamed | {gated.ROTARY: {"": positions}, "tie_word_embeddings": True}, bias=settings["attention_bias"]
    )


def _keys(config: DecoderConfig) -> dict[str, Any]:
    keys = {"hidden_act": gated.activation(config), **gated.layer_types(config), **rotary_keys.write(config)}
    return keys | {
        "no_rope_layers": _rotates(config),
        "use_sliding_window": keys["sliding_window"] is not None,
        "attention_bias": config.attention.query_bias,
        "mlp_bias": config.feedforward.up_bias,
    }


def _rotates(config: DecoderConfig) -> list[int]:
    return [int(isinstance(config.positions_of(layer), RotaryPositions)) for layer in range(config.num_layers)]


ARCHITECTURE = Architecture(
    name="smollm3",
    parts=(
        Part("embedding.tokens", "token_embedding", "embed_tokens", "token_embd"),
        Part("final_norm", "norm", "norm", "output_norm"),
        Part("head", "token_embedding", "lm_head", "output"),
    ),
    layer_parts=(
        Part("attention_norm", "input_layernorm", "input_layernorm", "attn_norm"),
        Part("query", "self_attn.q_proj", "self_attn.q_proj", "attn_q"),
        Part("key", "self_attn.k_proj", "self_attn.k_proj", "attn_k"),
        Part("value", "self_attn.v_proj", "self_attn.v_proj", "attn_v"),
        Part("output", "self_attn.o_proj", "self_attn.o_proj", "attn_output"),
        Part("feedforward_norm", "post_attention_layernorm", "post_attention_layernorm", "ffn_norm"),
        Part("gate", "mlp.gate_proj", "mlp.gate_proj", "ffn_gate"),
        Part("up", "mlp.up_proj", "mlp.up_proj", "ffn_up"),
        Part("down", "mlp.down_proj", "mlp.down_proj", "ffn_down"),
    ),
    read_config=_read,
    keys=gated.KEYS,
    further_keys=_keys,
    config_rules=ConfigRules(
        "SmolLM3",
        sizes=SIZES,
        defaults={
            **{"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "no_rope_layers": None, "no_rope_layer_interval": 4},
            **{"layer_types": None, "attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "head_dim": None},
            **{"use_sliding_window": False, "sliding_window": None, "tie_word_embeddings": True},
            "max_position_embeddings": 32_768,
        },
        fixed=gated.FIXED,
        irrelevant=("max_window_layers",),
        rope_theta=2_000_000.0,
    ),
    transformers_class="SmolLM3ForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    gguf="smollm3",
    gguf_interleaves_rotary=True,
    gguf_settings=lambda settings, tensors: {"no_rope_layers": None, "use_sliding_window": False},
    backbone="SmolLM3Backbone",
    describe=describe,
    arguments={
        **{
            name: path
            for name, path in gated.ARGUMENTS.items()
            if name not in ("num_query_heads", "rope_max_wavelength")
        },
        "num_attention_heads": "attention.num_query_heads",
        "rope_theta": "positions.base",
        "partial_rotary_factor": "positions.fraction",
        "attention_bias": "attention.query_bias",
        "mlp_bias": "feedforward.up_bias",
    },
    further_arguments=lambda config: {
        "rope_layer_enabled_list": _rotates(config),
        "layer_types": [gated.FULL] * config.num_layers,
        "attention_dropout": 0.0,
    },
    length_argument="max_position_embeddings",
    layer="SmolLM3DecoderLayer",
)
