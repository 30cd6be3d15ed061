"""Falcon, of all three generations. Source: Almazrouei et al. 2023, arXiv 2311.16867."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import (
    AlibiPositions,
    Attention,
    DecoderConfig,
    FeedForward,
    Norm,
    NormPlacement,
)
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import ConfigRules


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    heads, width, bias = settings["num_attention_heads"], settings["hidden_size"], bool(settings["bias"])
    is_new, size = settings["new_decoder_architecture"], gated.head_dim(settings)
    if not is_new and not settings["multi_query"] and settings.get("num_kv_heads") not in (None, heads):
        raise ModelArgumentError(
            f"num_kv_heads={settings['num_kv_heads']} with multi_query=False and new_decoder_architecture=False: such "
            f"a Falcon has as many as it has heads, {heads}."
        )
    groups = (settings["num_kv_heads"] or heads) if is_new else 1 if settings["multi_query"] else heads
    placement: NormPlacement = "parallel_shared" if is_new or settings["parallel_attn"] else "before"
    if is_new and settings["num_ln_in_parallel_attn"] in (None, 2):
        placement = "parallel"
    inner, kind = settings["ffn_hidden_size"] or 4 * width, gated.ACTIVATIONS[settings["activation"]]
    return DecoderConfig(
        architecture="falcon",
        vocabulary_size=settings["vocab_size"],
        num_layers=settings["num_hidden_layers"],
        hidden_dim=width,
        max_sequence_length=None,
        attention=Attention(heads, groups, size, bias, bias, bias, bias),
        feedforward=FeedForward(inner, kind, up_bias=bias, down_bias=bias),
        norm=Norm(epsilon=float(settings["layer_norm_epsilon"])),
        # Its slopes are scaled as scores are.
        positions=AlibiPositions(size**-0.5) if settings["alibi"] else settings[gated.ROTARY][""],
        norm_placement=placement,
        tied_head=settings["tie_word_embeddings"],
    )


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone, of the first generation."""
    return _read(
        {
            "vocab_size": settings["vocabulary_size"],
            "num_hidden_layers": settings["num_layers"],
            "hidden_size": settings["hidden_dim"],
            "num_attention_heads": settings["num_attention_heads"],
            "ffn_hidden_size": settings["intermediate_dim"],
            "layer_norm_epsilon": 1e-5,  # of its layers, whatever the backbone says
            **{"alibi": True, "bias": True, "activation": "gelu", "tie_word_embeddings": True},
            **{"new_decoder_architecture": False, "multi_query": False, "parallel_attn": False},
        }
    )


def _keys(config: DecoderConfig) -> dict[str, Any]:
    has_alibi, heads = isinstance(config.positions, AlibiPositions), config.attention
    is_grouped = heads.num_key_value_heads not in (1, heads.num_query_heads)
    is_new = is_grouped or config.norm_placement == "parallel"
    if is_new and config.norm_placement == "before":
        raise ModelArgumentError("A Falcon with grouped heads computes attention and feed-forward part side by side.")
    return {
        "activation": gated.activation(config),
        "alibi": has_alibi,
        "new_decoder_architecture": is_new,
        "num_kv_heads": heads.num_key_value_heads,
        "num_ln_in_parallel_attn": (2 if config.norm_placement == "parallel" else 1) if is_new else None,
        "multi_query": heads.num_key_value_heads == 1 and not is_new,
        "parallel_attn": config.norm_placement != "before",
        **({} if has_alibi else rotary_keys.write(config)),
    }


def _of_gguf(settings: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """llama.cpp computes both parts side by side, with rotary positions."""
    groups, has_two = settings["num_kv_heads"], "blk.0.attn_norm_2.weight" in tensors
    is_new = has_two or groups not in (1, settings["num_attention_heads"])
    return {
        "alibi": False,
        "new_decoder_architecture": is_new,
        "num_ln_in_parallel_attn": 2 if has_two else 1,
        "multi_query": groups == 1,
        "parallel_attn": True,
    }


def _renamed(config: DecoderConfig) -> dict[str, tuple[str, str]]:
    """The third generation has names of its own for its two norms."""
    if config.norm_placement != "parallel":
        return {}
    return {"attention_norm": ("ln_attn", "attn_norm_2"), "feedforward_norm": ("ln_mlp", "attn_norm")}


ARCHITECTURE = Architecture(
    name="falcon",
    parts=(
        Part("embedding.tokens", "token_embedding", "word_embeddings", "token_embd"),
        Part("final_norm", "final_layernorm", "ln_f", "output_norm"),
        Part("head", "token_embedding", "lm_head", "output"),
    ),
    layer_parts=(
        Part("attention_norm", "input_layernorm", "input_layernorm", "attn_norm"),
        Part("query", "attention_layer.query_dense", "self_attention.query_key_value", "attn_qkv"),
        Part("key", "attention_layer.key_dense", "self_attention.query_key_value", "attn_qkv"),
        Part("value", "attention_layer.value_dense", "self_attention.query_key_value", "attn_qkv"),
        Part("output", "attention_layer.output_dense", "self_attention.dense", "attn_output"),
        Part("feedforward_norm", "post_attention_layernorm", "post_attention_layernorm", "ffn_norm"),
        Part("up", "dense_h_to_4h", "mlp.dense_h_to_4h", "ffn_up"),
        Part("down", "dense_4h_to_h", "mlp.dense_4h_to_h", "ffn_down"),
    ),
    renamed=_renamed,
    read_config=_read,
    keys={
        **{key: gated.KEYS[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
        "ffn_hidden_size": "feedforward.intermediate_dim",
        "layer_norm_epsilon": "norm.epsilon",
        "bias": "attention.query_bias",
        "tie_word_embeddings": "tied_head",
    },
    further_keys=_keys,
    config_rules=ConfigRules(
        "Falcon",
        sizes=("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        defaults={
            **{"layer_norm_epsilon": 1e-5, "num_kv_heads": None, "alibi": False, "new_decoder_architecture": False},
            **{"multi_query": True, "parallel_attn": True, "bias": False, "num_ln_in_parallel_attn": None},
            **{"ffn_hidden_size": None, "activation": "gelu", "tie_word_embeddings": True},
            "max_position_embeddings": 2048,
        },
        fixed={"activation": tuple(gated.ACTIVATIONS), "apply_residual_connection_post_layernorm": (False,)},
        aliases={
            **{"n_embed": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"},
            "n_head_kv": "num_kv_heads",
        },
        rope_theta=10_000.0,
    ),
    transformers_class="FalconForCausalLM",
    transformers_prefixes=("transformer.",),
    transformers_layer="h.{}",
    transformers_by_group=True,
    transformers_ignored=(r"h\.\d+\.self_attention\.rotary_emb\.inv_freq",),
    gguf="falcon",
    gguf_settings=_of_gguf,
    backbone="FalconBackbone",
    describe=describe,
    arguments={
        **{name: gated.ARGUMENTS[name] for name in ("vocabulary_size", "hidden_dim", "num_layers", "intermediate_dim")},
        "num_attention_heads": "attention.num_query_heads",
        "layer_norm_epsilon": "norm.epsilon",
    },
    layer="FalconTransformerDecoder",
    activation="dense_h_to_4h.activation",
)
