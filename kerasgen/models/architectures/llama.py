"""Llama. Sources: Touvron et al. 2023, arXiv 2302.13971; Grattafiori et al. 2024, arXiv 2407.21783 (Llama 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, Norm, RotaryPositions
from kerasgen.decoder.rotary_scaling import Llama3Scaling, RotaryScaling
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import SILU_WITHOUT_BIASES, SIZES, ConfigRules, heads_divide_the_width


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone."""
    heads, width = settings["num_query_heads"], settings["hidden_dim"]
    return DecoderConfig(
        architecture="llama",
        vocabulary_size=settings["vocabulary_size"],
        num_layers=settings["num_layers"],
        hidden_dim=width,
        max_sequence_length=None,
        attention=Attention(heads, settings["num_key_value_heads"], width // heads),
        feedforward=FeedForward(settings["intermediate_dim"], "silu", gated=True),
        norm=Norm("rms", settings["layer_norm_epsilon"], bias=False),
        positions=RotaryPositions(base=float(settings["rope_max_wavelength"]), scaling=_scaling(settings)),
        tied_head=settings["tie_word_embeddings"],
    )


def _scaling(settings: Mapping[str, Any]) -> RotaryScaling | None:
    factor = settings.get("rope_frequency_adjustment_factor")
    if factor is not None:
        return Llama3Scaling(
            factor=float(factor),
            low_frequency_factor=float(settings["rope_low_freq_factor"]),
            high_frequency_factor=float(settings["rope_high_freq_factor"]),
            original_length=int(settings["rope_pretraining_sequence_length"]),
        )
    return None  # KerasHub's layers take a `rope_position_scaling_factor` and compute without it


def rotary_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of KerasHub's backbone that say how positions are rotated."""
    found = {"rope_max_wavelength": settings["rope_theta"]}
    scaling = settings["rope_scaling"]
    if scaling is None:
        return found
    return found | {
        "rope_frequency_adjustment_factor": scaling["factor"],
        "rope_low_freq_factor": scaling["low_freq_factor"],
        "rope_high_freq_factor": scaling["high_freq_factor"],
        "rope_pretraining_sequence_length": scaling["original_max_position_embeddings"],
    }


ARCHITECTURE = Architecture(
    name="llama",
    backbone="Llama3Backbone",  # which is Llama's under another name
    describe=describe,
    layer_norm_epsilon=1e-6,
    parts=(
        Part("embedding.tokens", "token_embedding", "embed_tokens", "token_embd"),
        Part("final_norm", "layer_norm", "norm", "output_norm"),
        Part("head", "token_embedding", "lm_head", "output"),
    ),
    layer_parts=(
        Part("attention_norm", "_self_attention_layernorm", "input_layernorm", "attn_norm"),
        Part("query", "_self_attention_layer._query_dense", "self_attn.q_proj", "attn_q"),
        Part("key", "_self_attention_layer._key_dense", "self_attn.k_proj", "attn_k"),
        Part("value", "_self_attention_layer._value_dense", "self_attn.v_proj", "attn_v"),
        Part("output", "_self_attention_layer._output_dense", "self_attn.o_proj", "attn_output"),
        Part("feedforward_norm", "_feedforward_layernorm", "post_attention_layernorm", "ffn_norm"),
        Part("gate", "_feedforward_gate_dense", "mlp.gate_proj", "ffn_gate"),
        Part("up", "_feedforward_intermediate_dense", "mlp.up_proj", "ffn_up"),
        Part("down", "_feedforward_output_dense", "mlp.down_proj", "ffn_down"),
    ),
    layer="LlamaTransformerDecoder",
    activation="activation",
    arguments={
        "vocabulary_size": "vocab_size",
        "hidden_dim": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_query_heads": "num_attention_heads",
        "num_key_value_heads": "num_key_value_heads",
        "intermediate_dim": "intermediate_size",
        "layer_norm_epsilon": "rms_norm_eps",
        "tie_word_embeddings": "tie_word_embeddings",
    },
    further_arguments=rotary_arguments,
    config_rules=ConfigRules(
        "Llama",
        sizes=SIZES,
        defaults={"num_key_value_heads": None, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
        fixed=SILU_WITHOUT_BIASES,
        rope_theta=10_000.0,
        rope_types=("default", "llama3"),
        further=heads_divide_the_width,
    ),
    transformers_class="LlamaForCausalLM",
    transformers_settings={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    transformers_prefixes=("model.",),  # `LlamaForCausalLM` writes it, `LlamaModel` none
    # Computed by a formula, or kept for shape's sake, in older files.
    transformers_ignored=(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
    gguf="llama",
    gguf_interleaves_rotary=True,
)
