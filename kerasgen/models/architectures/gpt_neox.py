"""GPT-NeoX and Pythia. Sources: Black et al. 2022, arXiv 2204.06745; Biderman et al. 2023, arXiv 2304.01373."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, Norm, RotaryPositions
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    heads, width, bias = settings["num_attention_heads"], settings["hidden_size"], settings["attention_bias"]
    kind = gated.ACTIVATIONS[settings["hidden_act"]]
    return DecoderConfig(
        architecture="gpt_neox",
        vocabulary_size=settings["vocab_size"],
        num_layers=settings["num_hidden_layers"],
        hidden_dim=width,
        max_sequence_length=None,
        attention=Attention(heads, heads, gated.head_dim(settings), bias, bias, bias, bias),
        feedforward=FeedForward(settings["intermediate_size"], kind, up_bias=True, down_bias=True),
        norm=Norm(epsilon=float(settings["layer_norm_eps"])),
        positions=settings[gated.ROTARY][""],
        norm_placement="parallel" if settings["use_parallel_residual"] else "before",
        tied_head=settings["tie_word_embeddings"],
    )


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone.

    Its activation is the approximate one and its head is tied, where Pythia's is exact, and has a head of its own.
    """
    base, share = float(settings["rotary_max_wavelength"]), float(settings["rotary_percentage"])
    return _read(
        {
            "vocab_size": settings["vocabulary_size"],
            "num_hidden_layers": settings["num_layers"],
            "hidden_size": settings["hidden_dim"],
            "num_attention_heads": settings["num_heads"],
            "intermediate_size": settings["intermediate_dim"],
            "layer_norm_eps": settings["layer_norm_epsilon"],
            **{"attention_bias": True, "hidden_act": "gelu_new", "use_parallel_residual": True},
            "tie_word_embeddings": True,
            gated.ROTARY: {"": RotaryPositions(base, share)},
        }
    )


ARCHITECTURE = Architecture(
    name="gpt_neox",
    parts=(
        Part("embedding.tokens", "token_embedding", "embed_in", "token_embd"),
        Part("final_norm", "layer_norm", "final_layer_norm", "output_norm"),
        Part("head", "token_embedding", "lm_head", "output"),
    ),
    layer_parts=(
        Part("attention_norm", "_self_attention_layer_norm", "input_layernorm", "attn_norm"),
        Part("query", "_self_attention_layer._qkv_dense", "attention.query_key_value", "attn_qkv"),
        Part("key", "_self_attention_layer._qkv_dense", "attention.query_key_value", "attn_qkv"),
        Part("value", "_self_attention_layer._qkv_dense", "attention.query_key_value", "attn_qkv"),
        Part("output", "_self_attention_layer._output_dense", "attention.dense", "attn_output"),
        Part("feedforward_norm", "_feedforward_layer_norm", "post_attention_layernorm", "ffn_norm"),
        Part("up", "_feedforward_intermediate_dense", "mlp.dense_h_to_4h", "ffn_up"),
        Part("down", "_feedforward_output_dense", "mlp.dense_4h_to_h", "ffn_down"),
    ),
    read_config=_read,
    keys={
        **{key: gated.KEYS[key] for key in (*SIZES, "tie_word_embeddings")},
        "layer_norm_eps": "norm.epsilon",
        "attention_bias": "attention.query_bias",
    },
    further_keys=lambda config: {
        "hidden_act": gated.activation(config),
        "use_parallel_residual": config.norm_placement == "parallel",
        **rotary_keys.write(config),
        # Versions before 5 know the base and the share by these names.
        "rotary_emb_base": rotary_keys.write(config)["rope_theta"],
        "rotary_pct": rotary_keys.write(config).get("partial_rotary_factor", 1.0),
        "partial_rotary_factor": rotary_keys.write(config).get("partial_rotary_factor", 1.0),
    },
    config_rules=ConfigRules(
        "GPTNeoX",
        sizes=SIZES,
        defaults={
            **{"layer_norm_eps": 1e-5, "attention_bias": True, "hidden_act": "gelu", "use_parallel_residual": True},
            **{"tie_word_embeddings": False, "max_position_embeddings": 2048},
        },
        fixed=gated.FIXED,
        irrelevant=("classifier_dropout",),
        aliases={"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"},
        rope_theta=10_000.0,
        partial_rotary_factor=0.25,
        partial_rotary_key="rotary_pct",
    ),
    transformers_class="GPTNeoXForCausalLM",
    transformers_prefixes=("gpt_neox.",),
    transformers_other_names={"embed_out": "lm_head"},
    transformers_by_group=True,
    # The causal mask and its number, which older versions of transformers kept beside the weights.
    transformers_ignored=(r"layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",),
    gguf="gptneox",
    backbone="GPTNeoXBackbone",
    describe=describe,
    arguments={
        **{name: path for name, path in gated.ARGUMENTS.items() if "query" not in name and "key" not in name},
        "num_heads": "attention.num_query_heads",
        "rotary_max_wavelength": "positions.base",
        "rotary_percentage": "positions.fraction",
    },
    length_argument="max_sequence_length",
    layer="GPTNeoXDecoder",
    activation="_feedforward_intermediate_dense.activation",
)
