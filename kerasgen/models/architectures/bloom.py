"""Bloom. Source: BigScience Workshop 2022, "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import AlibiPositions, Attention, DecoderConfig, FeedForward, Norm
from kerasgen.models.architectures import gated
from kerasgen.models.architectures.base import Architecture, Part
from kerasgen.models.architectures.config_rules import ConfigRules


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone."""
    heads, width, norm = settings["num_heads"], settings["hidden_dim"], Norm(epsilon=settings["layer_norm_epsilon"])
    size = gated.head_dim({"hidden_size": width, "num_attention_heads": heads})
    return DecoderConfig(
        architecture="bloom",
        vocabulary_size=settings["vocabulary_size"],
        num_layers=settings["num_layers"],
        hidden_dim=width,
        max_sequence_length=None,
        attention=Attention(heads, heads, size, True, True, True, True),
        feedforward=FeedForward(settings["intermediate_dim"], "gelu_approximate", up_bias=True, down_bias=True),
        norm=norm,
        positions=AlibiPositions(),
        embedding_norm=norm,
        tied_head=settings.get("tie_word_embeddings", True),
    )


_KEYS = {
    "vocab_size": "vocabulary_size",
    "hidden_size": "hidden_dim",
    "n_layer": "num_layers",
    "n_head": "attention.num_query_heads",
    "layer_norm_epsilon": "norm.epsilon",
}
_ARGUMENTS = {
    "vocabulary_size": "vocabulary_size",
    "hidden_dim": "hidden_dim",
    "num_layers": "num_layers",
    "num_heads": "attention.num_query_heads",
    "layer_norm_epsilon": "norm.epsilon",
}


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    arguments = {name: settings[key] for name, key in zip(_ARGUMENTS, _KEYS, strict=True)}
    more = {"intermediate_dim": 4 * arguments["hidden_dim"], "tie_word_embeddings": settings["tie_word_embeddings"]}
    return describe(arguments | more)


ARCHITECTURE = Architecture(
    name="bloom",
    parts=(
        Part("embedding.tokens", "token_embedding", "word_embeddings", "token_embd"),
        Part("embedding.norm", "embeddings_layer_norm", "word_embeddings_layernorm", "token_embd_norm"),
        Part("final_norm", "layer_norm", "ln_f", "output_norm"),
        Part("head", "token_embedding", "lm_head", "output"),
    ),
    layer_parts=(
        Part("attention_norm", "_pre_attention_layernorm", "input_layernorm", "attn_norm"),
        Part("query", "_self_attention_layer._query_dense", "self_attention.query_key_value", "attn_qkv"),
        Part("key", "_self_attention_layer._key_dense", "self_attention.query_key_value", "attn_qkv"),
        Part("value", "_self_attention_layer._value_dense", "self_attention.query_key_value", "attn_qkv"),
        Part("output", "_self_attention_layer._output_dense", "self_attention.dense", "attn_output"),
        Part("feedforward_norm", "_post_attention_layernorm", "post_attention_layernorm", "ffn_norm"),
        Part("up", "_mlp_intermediate_dense", "mlp.dense_h_to_4h", "ffn_up"),
        Part("down", "_mlp_output_dense", "mlp.dense_4h_to_h", "ffn_down"),
    ),
    read_config=_read,
    keys=_KEYS | {"tie_word_embeddings": "tied_head"},
    config_rules=ConfigRules(
        "Bloom",
        sizes=("vocab_size", "hidden_size", "n_layer", "n_head"),
        defaults={"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
        fixed={
            **{"apply_residual_connection_post_layernorm": (False,), "n_inner": (None,)},
            **{"offset_alibi": (100,), "skip_bias_add": (True,), "skip_bias_add_qkv": (False,)},
        },
        # All of them say how its authors computed it, in which order and in which precision.
        irrelevant=(
            *("slow_but_exact", "seq_length", "unk_token_id", "bias_dropout_fusion", "masked_softmax_fusion"),
            *("attention_softmax_in_fp32", "max_position_embeddings"),
        ),
        aliases={"n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    ),
    transformers_class="BloomForCausalLM",
    transformers_prefixes=("transformer.",),
    transformers_layer="h.{}",
    transformers_by_group=True,
    gguf="bloom",
    backbone="BloomBackbone",
    describe=describe,
    arguments=_ARGUMENTS | {"intermediate_dim": "feedforward.intermediate_dim"},
    layer="BloomDecoder",
)
