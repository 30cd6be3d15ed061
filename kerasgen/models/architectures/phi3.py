"""Phi-3, 3.5 and Phi-4 mini. Source: Abdin et al. 2024, "Phi-3 Technical Report", arXiv 2404.14219."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.rotary_scaling import LongRopeScaling
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules


def _read(settings: Mapping[str, Any], **further: Any) -> DecoderConfig:
    windows = (settings.get("sliding_window"),) * settings["num_hidden_layers"]
    return gated.read("phi3", settings, windows=windows, **further)


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone, which knows no window."""
    scaling = None
    if settings["rope_scaling_type"] == "su":
        original, longest = settings["pretraining_sequence_length"], settings["max_sequence_length"]
        growth = math.log(longest / original) / math.log(original)
        scaling = LongRopeScaling(
            tuple(map(float, settings["rope_scaling_short_factor"])),
            tuple(map(float, settings["rope_scaling_long_factor"])),
            original,
            math.sqrt(1 + growth) if longest > original else 1.0,
        )
    renamed = gated.of_keras_hub(settings)
    return _read(renamed, positions=RotaryPositions(float(settings["rope_max_wavelength"]), scaling=scaling))


def _scaling(config: DecoderConfig) -> dict[str, Any]:
    scaling = config.positions.scaling if isinstance(config.positions, RotaryPositions) else None
    if not isinstance(scaling, LongRopeScaling):
        return {"rope_scaling_type": None}
    # KerasHub's class takes the length that makes the attention's factor.
    growth = math.exp((scaling.attention_factor**2 - 1) * math.log(scaling.original_length))
    return {
        "rope_scaling_type": "su",
        "rope_scaling_short_factor": list(scaling.short_factors),
        "rope_scaling_long_factor": list(scaling.long_factors),
        "pretraining_sequence_length": scaling.original_length,
        "max_sequence_length": round(growth * scaling.original_length),
    }


def _keys(config: DecoderConfig) -> dict[str, Any]:
    keys = {"hidden_act": gated.activation(config), "sliding_window": gated.common_window(config)}
    positions = rotary_keys.write(config)
    scaling = positions["rope_scaling"]
    return keys | positions | ({} if scaling is None else {rotary_keys.ORIGINAL: scaling[rotary_keys.ORIGINAL]})


ARCHITECTURE = Architecture(
    name="phi3",
    parts=gated.PARTS,
    layer_parts=(
        Part("attention_norm", "pre_attention_layernorm", "input_layernorm", "attn_norm"),
        Part("query", "attention.query_dense", "self_attn.qkv_proj", "attn_qkv"),
        Part("key", "attention.key_dense", "self_attn.qkv_proj", "attn_qkv"),
        Part("value", "attention.value_dense", "self_attn.qkv_proj", "attn_qkv"),
        Part("output", "attention.output_dense", "self_attn.o_proj", "attn_output"),
        Part("feedforward_norm", "post_attention_layernorm", "post_attention_layernorm", "ffn_norm"),
        Part("gate", "feedforward_gate_dense", "mlp.gate_up_proj", "ffn_up"),
        Part("up", "feedforward_intermediate_dense", "mlp.gate_up_proj", "ffn_up"),
        Part("down", "feedforward_output_dense", "mlp.down_proj", "ffn_down"),
    ),
    read_config=_read,
    keys={key: path for key, path in gated.KEYS.items() if key != "head_dim"},
    further_keys=_keys,
    config_rules=ConfigRules(
        "Phi3",
        sizes=SIZES,
        defaults={
            **{"num_key_value_heads": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "hidden_act": "silu"},
            **{"sliding_window": None, "max_position_embeddings": 4096, rotary_keys.ORIGINAL: 4096},
        },
        fixed={**gated.FIXED, "attention_bias": (False,), "mlp_bias": (False,), "head_dim": (None,)},
        irrelevant=("resid_pdrop", "embd_pdrop"),
        rope_theta=10_000.0,
        partial_rotary_key="partial_rotary_factor",
        rope_types=("default", "longrope"),
        rope_aliases={"su": "longrope", "yarn": "longrope"},  # as transformers takes them of a Phi-3
    ),
    transformers_class="Phi3ForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    gguf="phi3",
    gguf_settings=lambda settings, tensors: {"sliding_window": None},  # which it leaves out
    backbone="Phi3Backbone",
    describe=describe,
    arguments=gated.ARGUMENTS,
    further_arguments=_scaling,
    length_argument="max_sequence_length",
    layer="Phi3Decoder",
    activation="activation",
)
