"""Qwen 3. Source: Yang et al. 2025, "Qwen3 Technical Report", arXiv 2505.09388."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig, Norm
from kerasgen.models.architectures import gated, qwen2, rotary_keys
from kerasgen.models.architectures.base import Architecture


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    norm = Norm("rms", float(settings["rms_norm_eps"]), bias=False)
    return gated.read("qwen3", settings, query_key_norm=norm, windows=qwen2.windows(settings))


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone."""
    return gated.read(
        "qwen3",
        gated.of_keras_hub(settings),
        query_key_norm=Norm("rms", 1e-5, bias=False),  # whatever the others have: Qwen 3's own is 1e-6
        windows=(settings["sliding_window_size"],) * settings["num_layers"],
    )


ARCHITECTURE = Architecture(
    name="qwen3",
    parts=gated.PARTS,
    layer_parts=gated.LAYER_PARTS,
    read_config=_read,
    keys=gated.KEYS,
    further_keys=lambda config: {
        "hidden_act": gated.activation(config),
        "attention_bias": config.attention.query_bias,
        **qwen2.window_keys(config),
        **rotary_keys.write(config),
    },
    config_rules=gated.rules(
        "Qwen3",
        **{"num_key_value_heads": 32, "head_dim": 128, "rms_norm_eps": 1e-6, "attention_bias": False},
        **qwen2.WINDOW_DEFAULTS,
    ),
    transformers_class="Qwen3ForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    gguf="qwen3",
    gguf_settings=lambda settings, tensors: {"use_sliding_window": False},
    backbone="Qwen3Backbone",
    describe=describe,
    arguments=gated.ARGUMENTS | {"tie_word_embeddings": "tied_head", "head_dim": "attention.head_dim"},
    further_arguments=lambda config: {
        "sliding_window_size": gated.common_window(config),
        "rope_scaling_factor": rotary_keys.linear_factor(config.positions),
    },
    layer="Qwen3TransformerDecoder",
    activation="activation",
)
