"""Granite 3, which KerasHub has no class for. Source: Granite Team, IBM 2024, "Granite 3.0 Language Models"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description: a Llama with four multipliers."""
    scale = float(settings["attention_multiplier"])
    return gated.read(
        "granite",
        settings,
        scale=None if scale == gated.head_dim(settings) ** -0.5 else scale,
        embedding_scale=float(settings["embedding_multiplier"]),
        residual_scale=float(settings["residual_multiplier"]),
        logit_scale=1 / float(settings["logits_scaling"]),
    )


ARCHITECTURE = Architecture(
    name="granite",
    parts=gated.PARTS,
    layer_parts=gated.LAYER_PARTS,
    read_config=_read,
    keys={
        **gated.KEYS,
        "attention_multiplier": "attention.score_scale",
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
    },
    further_keys=lambda config: {
        "logits_scaling": 1 / config.logit_scale,
        "hidden_act": gated.activation(config),
        "attention_bias": config.attention.query_bias,
        "mlp_bias": config.feedforward.up_bias,
        **rotary_keys.write(config),
    },
    config_rules=gated.rules(
        "Granite",
        **{"rms_norm_eps": 1e-6, "attention_bias": False, "mlp_bias": False, "max_position_embeddings": 2048},
        **{"attention_multiplier": 1.0, "embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0},
    ),
    transformers_class="GraniteForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    gguf="granite",
    gguf_interleaves_rotary=True,
)
