"""OLMo 2, which KerasHub has no class for. Source: OLMo Team 2024, "2 OLMo 2 Furious", arXiv 2501.00656."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig, Norm
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture, Part


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    """Norms stand behind attention and feed-forward part, and one is of all heads together."""
    norm = Norm("rms", float(settings["rms_norm_eps"]), bias=False)
    return gated.read("olmo2", settings, query_key_norm=norm, query_key_norm_axis="all_heads", norm_placement="after")


_ABSENT = ("attention_norm", "feedforward_norm")
_NORMS = (
    Part("attention_post_norm", "", "post_attention_layernorm", "post_attention_norm"),
    Part("feedforward_post_norm", "", "post_feedforward_layernorm", "post_ffw_norm"),
)

ARCHITECTURE = Architecture(
    name="olmo2",
    parts=gated.PARTS,
    layer_parts=(
        *(part for part in gated.LAYER_PARTS if part.name not in _ABSENT),
        *_NORMS,
    ),
    read_config=_read,
    keys=gated.KEYS,
    further_keys=lambda config: {
        "hidden_act": gated.activation(config),
        "attention_bias": config.attention.query_bias,
        **rotary_keys.write(config),
    },
    config_rules=gated.rules("Olmo2", rms_norm_eps=1e-5, attention_bias=False, max_position_embeddings=2048),
    transformers_class="Olmo2ForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    gguf="olmo2",
    gguf_settings=lambda settings, tensors: {"head_dim": None},  # llama.cpp loads none whose heads have another size
)
