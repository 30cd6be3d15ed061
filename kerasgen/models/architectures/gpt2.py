"""GPT-2. Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import Attention, DecoderConfig, FeedForward, LearnedPositions, Norm
from kerasgen.models.architectures import gated
from kerasgen.models.architectures.base import Architecture, ByteLevelTokens, Part
from kerasgen.models.architectures.config_rules import ConfigRules


def describe(settings: Mapping[str, Any], *, name: str = "gpt2", activation: Any = "gelu_approximate") -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone; OPT's differs by the activation."""
    heads, width = settings["num_heads"], settings["hidden_dim"]
    size = gated.head_dim({"hidden_size": width, "num_attention_heads": heads})
    return DecoderConfig(
        architecture=name,
        vocabulary_size=settings["vocabulary_size"],
        num_layers=settings["num_layers"],
        hidden_dim=width,
        max_sequence_length=settings["max_sequence_length"],
        attention=Attention(*(heads, heads, size), query_bias=True, key_bias=True, value_bias=True, output_bias=True),
        feedforward=FeedForward(settings["intermediate_dim"], activation, up_bias=True, down_bias=True),
        norm=Norm(epsilon=settings["layer_norm_epsilon"]),
        positions=LearnedPositions(),
    )


ARGUMENTS = {
    "vocabulary_size": "vocabulary_size",
    "max_sequence_length": "max_sequence_length",
    "hidden_dim": "hidden_dim",
    "num_layers": "num_layers",
    "num_heads": "attention.num_query_heads",
    "intermediate_dim": "feedforward.intermediate_dim",
}
_KEYS = {
    "vocab_size": "vocabulary_size",
    "n_positions": "max_sequence_length",
    "n_embd": "hidden_dim",
    "n_layer": "num_layers",
    "n_head": "attention.num_query_heads",
    "n_inner": "feedforward.intermediate_dim",
}


def _read(settings: Mapping[str, Any]) -> DecoderConfig:
    inner = settings["n_inner"] or 4 * settings["n_embd"]
    arguments = {name: inner if key == "n_inner" else settings[key] for name, key in zip(ARGUMENTS, _KEYS, strict=True)}
    return describe(arguments | {"layer_norm_epsilon": 1e-5})


ARCHITECTURE = Architecture(
    name="gpt2",
    read_config=_read,
    parts=(
        Part("embedding.tokens", "token_embedding", "wte", "token_embd"),
        Part("embedding.positions", "position_embedding", "wpe", "position_embd"),
        Part("final_norm", "layer_norm", "ln_f", "output_norm"),
    ),
    layer_parts=(
        Part("attention_norm", "_self_attention_layer_norm", "ln_1", "attn_norm"),
        Part("query", "_self_attention_layer.query_dense", "attn.c_attn", "attn_qkv"),
        Part("key", "_self_attention_layer.key_dense", "attn.c_attn", "attn_qkv"),
        Part("value", "_self_attention_layer.value_dense", "attn.c_attn", "attn_qkv"),
        Part("output", "_self_attention_layer.output_dense", "attn.c_proj", "attn_output"),
        Part("feedforward_norm", "_feedforward_layer_norm", "ln_2", "ffn_norm"),
        Part("up", "_feedforward_intermediate_dense", "mlp.c_fc", "ffn_up"),
        Part("down", "_feedforward_output_dense", "mlp.c_proj", "ffn_down"),
    ),
    keys=_KEYS,
    config_rules=ConfigRules(
        "GPT2",
        sizes=("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"),
        defaults={"resid_pdrop": 0.1, "n_inner": None},
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "layer_norm_epsilon": (1e-5,),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "tie_word_embeddings": (True,),
        },
        # The last one computes the same in another order, for half precision.
        irrelevant=(
            *("n_ctx", "embd_pdrop", "attn_pdrop", "summary_type", "summary_use_proj", "summary_activation"),
            *("summary_proj_to_labels", "summary_first_dropout", "reorder_and_upcast_attn"),
        ),
        aliases={
            "hidden_size": "n_embd",
            "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head",
            "num_hidden_layers": "n_layer",
        },
    ),
    transformers_class="GPT2LMHeadModel",
    transformers_settings={
        "activation_function": "gelu_new",
        # Those of GPT-2; they matter to who tunes it further. KerasHub's converter asks for the first.
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    transformers_same={"n_ctx": "n_positions"},
    transformers_dropout="resid_pdrop",
    transformers_prefixes=("transformer.",),  # `GPT2LMHeadModel` writes it, `GPT2Model` none
    transformers_layer="h.{}",
    transformers_kernels="in_out",
    # The causal mask, which older versions of transformers kept beside the weights.
    transformers_ignored=(r"h\.\d+\.attn\.(masked_)?bias",),
    gguf="gpt2",
    backbone="GPT2Backbone",
    describe=describe,
    arguments=ARGUMENTS,
    layer="TransformerDecoder",
    activation="_feedforward_intermediate_dense.activation",
    dropouts=("_self_attention_layer._dropout_layer", "_self_attention_dropout", "_feedforward_dropout"),
    stored={
        "embedding.tokens": "layers/reversible_embedding",
        "embedding.positions": "layers/position_embedding",
        "final_norm": "layers/layer_normalization",
    },
    stored_layer="layers/transformer_decoder",
    tokens=ByteLevelTokens("GPT2Backbone", "GPT2Tokenizer", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
)
