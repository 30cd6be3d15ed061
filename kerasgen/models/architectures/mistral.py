"""Mistral. Source: Jiang et al. 2023, "Mistral 7B", arXiv 2310.06825."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description: every layer has the window, if there is one."""
    windows = (settings["sliding_window"],) * settings["num_hidden_layers"]
    return gated.read("mistral", settings, windows=windows)


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone, which has a head of its own."""
    return _read(gated.of_keras_hub(settings) | {"sliding_window": settings["sliding_window"]})


ARCHITECTURE = Architecture(
    name="mistral",
    parts=gated.PARTS,
    layer_parts=gated.LAYER_PARTS,
    read_config=_read,
    keys=gated.KEYS,
    further_keys=lambda config: {
        "hidden_act": gated.activation(config),
        "sliding_window": gated.common_window(config),
        **rotary_keys.write(config),
    },
    config_rules=ConfigRules(
        "Mistral",
        sizes=SIZES,
        defaults={
            **{"num_key_value_heads": 8, "head_dim": None, "sliding_window": 4096, "rms_norm_eps": 1e-6},
            **{"tie_word_embeddings": False, "hidden_act": "silu", "max_position_embeddings": None},
        },
        fixed={**gated.FIXED, "attention_bias": (False,), "mlp_bias": (False,), "layer_types": (None,)},
        rope_theta=10_000.0,
    ),
    transformers_class="MistralForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    # llama.cpp has no window for what it calls so: a model with one is refused where texts are longer.
    gguf="llama",
    gguf_interleaves_rotary=True,
    gguf_settings=lambda settings, tensors: {"sliding_window": None},
    backbone="MistralBackbone",
    describe=describe,
    arguments=gated.ARGUMENTS | {"head_dim": "attention.head_dim"},
    further_arguments=lambda config: {
        "sliding_window": gated.common_window(config),
        "rope_scaling_factor": rotary_keys.linear_factor(config.positions),
    },
    layer="MistralTransformerDecoder",
    activation="activation",
)
