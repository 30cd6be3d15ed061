"""OPT. Source: Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kerasgen.decoder.config import DecoderConfig, LearnedPositions
from kerasgen.models.architectures import gpt2
from kerasgen.models.architectures.base import Architecture, ByteLevelTokens, Part
from kerasgen.models.architectures.config_rules import ConfigRules


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone."""
    # It inherits fairseq's positions: row 2 belongs to the first token, rows 0 and 1 to nobody.
    return replace(gpt2.describe(settings, name="opt", activation="relu"), positions=LearnedPositions(offset=2))


def _projection(config: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the width of word embeddings, which KerasHub's OPT can't project; None if nothing."""
    width, hidden = config["word_embed_proj_dim"], config["hidden_size"]
    if width in (None, hidden):
        return None
    return f"word_embed_proj_dim={width} beside hidden_size={hidden} (as opt-350m, alone of OPT's published sizes)"


_KEYS = {
    "vocab_size": "vocabulary_size",
    "max_position_embeddings": "max_sequence_length",
    "hidden_size": "hidden_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "attention.num_query_heads",
    "ffn_dim": "feedforward.intermediate_dim",
}

ARCHITECTURE = Architecture(
    name="opt",
    read_config=lambda settings: describe(
        {name: settings[key] for name, key in zip(gpt2.ARGUMENTS, _KEYS, strict=True)} | {"layer_norm_epsilon": 1e-5}
    ),
    keys=_KEYS,
    parts=(
        Part("embedding.tokens", "embeddings.token_embedding", "embed_tokens", "token_embd"),
        Part("embedding.positions", "embeddings.position_embedding", "embed_positions", "position_embd"),
        Part("final_norm", "layer_norm", "final_layer_norm", "output_norm"),
    ),
    layer_parts=(
        Part("attention_norm", "_self_attention_layer_norm", "self_attn_layer_norm", "attn_norm"),
        Part("query", "_self_attention_layer.query_dense", "self_attn.q_proj", "attn_q"),
        Part("key", "_self_attention_layer.key_dense", "self_attn.k_proj", "attn_k"),
        Part("value", "_self_attention_layer.value_dense", "self_attn.v_proj", "attn_v"),
        Part("output", "_self_attention_layer.output_dense", "self_attn.out_proj", "attn_output"),
        Part("feedforward_norm", "_feedforward_layer_norm", "final_layer_norm", "ffn_norm"),
        Part("up", "_feedforward_intermediate_dense", "fc1", "ffn_up"),
        Part("down", "_feedforward_output_dense", "fc2", "ffn_down"),
    ),
    config_rules=ConfigRules(
        "OPT",
        sizes=(
            *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim"),
            "max_position_embeddings",
        ),
        defaults={"dropout": 0.1, "word_embed_proj_dim": None},
        fixed={
            "activation_function": ("relu",),
            "do_layer_norm_before": (True,),
            "_remove_final_layer_norm": (False,),
            "enable_bias": (True,),
            "layer_norm_elementwise_affine": (True,),
            "tie_word_embeddings": (True,),
            "learned_embeddings": (True,),
            "scale_embeddings": (False,),
        },
        irrelevant=("activation_dropout", "layerdrop", "init_std"),
        further=_projection,
    ),
    transformers_class="OPTForCausalLM",
    transformers_settings={
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": True,
    },
    transformers_dropout="dropout",
    transformers_same={"word_embed_proj_dim": "hidden_size"},
    transformers_prefixes=("model.decoder.", "decoder."),  # `OPTForCausalLM` writes the first, `OPTModel` the second
    transformers_ignored=("version",),  # a number that fairseq's conversion left
    backbone="OPTBackbone",
    describe=describe,
    arguments=gpt2.ARGUMENTS,
    layer="TransformerDecoder",
    activation="_feedforward_intermediate_dense.activation",
    dropouts=("_self_attention_layer._dropout_layer", "_self_attention_dropout", "_feedforward_dropout"),
    stored={
        "embedding.tokens": "layers/token_and_position_embedding/token_embedding",
        "embedding.positions": "layers/token_and_position_embedding/position_embedding",
        "final_norm": "layers/layer_normalization",
    },
    stored_layer="layers/transformer_decoder",
    tokens=ByteLevelTokens("OPTBackbone", "OPTTokenizer", "</s>", "</s>", "<pad>"),
)
