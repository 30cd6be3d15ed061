"""Qwen 2 and 2.5. Sources: Yang et al. 2024, arXiv 2407.10671 and arXiv 2412.15115."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture


def windows(settings: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return each layer's window: where windows are used, only layers from `max_window_layers` on have one."""
    first = settings["max_window_layers"] if settings["use_sliding_window"] else settings["num_hidden_layers"]
    kinds = [gated.FULL if n < first else gated.SLIDING for n in range(settings["num_hidden_layers"])]
    window = settings["sliding_window"] if settings["use_sliding_window"] else None
    return gated.windows_of({**settings, "sliding_window": window}, kinds)


def window_keys(config: DecoderConfig) -> dict[str, Any]:
    """Return the keys of windows; they are not used where there is none."""
    keys = gated.layer_types(config)
    return keys | {"use_sliding_window": keys["sliding_window"] is not None, "max_window_layers": config.num_layers}


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone."""
    window = settings["sliding_window_size"] if settings["use_sliding_window_attention"] else None
    return gated.read("qwen2", gated.of_keras_hub(settings), bias=True, windows=(window,) * settings["num_layers"])


WINDOW_DEFAULTS = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None}

ARCHITECTURE = Architecture(
    name="qwen2",
    parts=gated.PARTS,
    layer_parts=gated.LAYER_PARTS,
    read_config=lambda settings: gated.read("qwen2", settings, bias=True, windows=windows(settings)),
    keys=gated.KEYS,
    further_keys=lambda config: {
        "hidden_act": gated.activation(config),
        **window_keys(config),
        **rotary_keys.write(config),
    },
    config_rules=gated.rules("Qwen2", num_key_value_heads=32, rms_norm_eps=1e-6, **WINDOW_DEFAULTS),
    transformers_class="Qwen2ForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    gguf="qwen2",
    gguf_settings=lambda settings, tensors: {"use_sliding_window": False},
    backbone="QwenBackbone",
    describe=describe,
    arguments=gated.ARGUMENTS | {"tie_word_embeddings": "tied_head"},
    further_arguments=lambda config: {
        "use_sliding_window_attention": gated.common_window(config) is not None,
        "sliding_window_size": gated.common_window(config) or 4096,
        "rope_scaling_factor": rotary_keys.linear_factor(config.positions),
    },
    layer="QwenTransformerDecoder",
    activation="activation",
)
