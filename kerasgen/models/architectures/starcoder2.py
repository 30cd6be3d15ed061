"""StarCoder2, which KerasHub has no class for. Source: Lozhkov et al. 2024, arXiv 2402.19173."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, Norm
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    """All projections have biases or none has; every layer has the window, if there is one."""
    bias, window, layers = bool(settings["use_bias"]), settings["sliding_window"], settings["num_hidden_layers"]
    return DecoderConfig(
        architecture="starcoder2",
        vocabulary_size=settings["vocab_size"],
        num_layers=layers,
        hidden_dim=settings["hidden_size"],
        max_sequence_length=None,
        attention=Attention(
            settings["num_attention_heads"],
            settings["num_key_value_heads"],
            gated.head_dim(settings),
            *(bias, bias, bias, bias),
            windows=(window,) * layers if window else (),
        ),
        feedforward=FeedForward(
            settings["intermediate_size"], gated.ACTIVATIONS[settings["hidden_act"]], up_bias=bias, down_bias=bias
        ),
        norm=Norm(epsilon=float(settings["norm_epsilon"])),
        positions=settings[gated.ROTARY][""],
        tied_head=settings["tie_word_embeddings"],
    )


_MLP = {"up": "mlp.c_fc", "down": "mlp.c_proj"}

ARCHITECTURE = Architecture(
    name="starcoder2",
    parts=gated.PARTS,
    layer_parts=tuple(part._replace(transformers=_MLP.get(part.name, part.transformers)) for part in gated.LAYER_PARTS),
    read_config=_read,
    keys={
        **{key: path for key, path in gated.KEYS.items() if key != "rms_norm_eps"},
        "norm_epsilon": "norm.epsilon",
        "use_bias": "attention.query_bias",
    },
    further_keys=lambda config: {
        "hidden_act": gated.activation(config),
        "sliding_window": gated.common_window(config),
        **rotary_keys.write(config),
    },
    config_rules=ConfigRules(
        "Starcoder2",
        sizes=SIZES,
        defaults={
            **{"num_key_value_heads": 2, "head_dim": None, "sliding_window": None, "norm_epsilon": 1e-5},
            **{"use_bias": True, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"},
            "max_position_embeddings": 4096,
        },
        fixed={**gated.FIXED, "layer_types": (None,), "norm_type": ("layer_norm",), "mlp_type": ("default",)},
        irrelevant=("residual_dropout", "embedding_dropout", "rms_norm_eps"),  # the last stands in the 15B's file
        rope_theta=10_000.0,
    ),
    transformers_class="Starcoder2ForCausalLM",
    transformers_prefixes=("model.",),
    transformers_ignored=gated.IGNORED,
    # llama.cpp has no window for it, and loads none whose heads have another size than their share of the width.
    gguf="starcoder2",
    gguf_settings=lambda settings, tensors: {"sliding_window": None, "head_dim": None},
)
