"""BERT: learned positions, token types, blocks of their own."""

from __future__ import annotations

from typing import Final

from kerasgen.models.encoders.base import EncoderArchitecture, Names, SpecialNames

KERAS_LAYER_PARTS: Final = {
    "query": "_self_attention_layer.query_dense",
    "key": "_self_attention_layer.key_dense",
    "value": "_self_attention_layer.value_dense",
    "output": "_self_attention_layer.output_dense",
    "attention_norm": "_self_attention_layer_norm",
    "up": "_feedforward_intermediate_dense",
    "down": "_feedforward_output_dense",
    "feedforward_norm": "_feedforward_layer_norm",
}
"""KerasHub's attribute paths of a block's parts."""

KERAS_HEAD: Final = {
    "head.dense": "masked_lm_head._intermediate_dense",
    "head.norm": "masked_lm_head._intermediate_layer_norm",
    "head.bias": "masked_lm_head._bias",
}
BERT_TOKENS: Final = SpecialNames("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]")

_LAYER: Final = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feedforward_norm": "output.LayerNorm",
}
LAYER_PARTS: Final = {role: Names(name, KERAS_LAYER_PARTS[role]) for role, name in _LAYER.items()}
KEYS: Final = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "activation": "hidden_act",
    "norm_epsilon": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
}
DEFAULTS: Final = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "max_position_embeddings": 512,
    "hidden_dropout_prob": 0.1,
}
FIXED: Final = {"position_embedding_type": ("absolute", None), "tie_word_embeddings": (True,), "is_decoder": (False,)}

ARCHITECTURE: Final = EncoderArchitecture(
    name="bert",
    model_class="BertForMaskedLM",
    task="BertMaskedLM",
    prefix="bert.",
    parts={
        "embedding.tokens": Names("bert.embeddings.word_embeddings", "backbone.token_embedding"),
        "embedding.positions": Names("bert.embeddings.position_embeddings", "backbone.position_embedding"),
        "embedding.segments": Names("bert.embeddings.token_type_embeddings", "backbone.segment_embedding"),
        "embedding.norm": Names("bert.embeddings.LayerNorm", "backbone.embeddings_layer_norm"),
        "head.dense": Names("cls.predictions.transform.dense", KERAS_HEAD["head.dense"]),
        "head.norm": Names("cls.predictions.transform.LayerNorm", KERAS_HEAD["head.norm"]),
        "head.bias": Names("cls.predictions.bias", KERAS_HEAD["head.bias"]),
    },
    layer_parts=LAYER_PARTS,
    layer="bert.encoder.layer.{}.",
    keras_layer="backbone.transformer_layers.{}",
    keys=KEYS,
    defaults=DEFAULTS,
    fixed=FIXED,
    ignored=(
        r"bert\.pooler\..*",
        r"bert\.embeddings\.position_ids",
        r"cls\.predictions\.decoder\.bias",
        r"cls\.seq_relationship\..*",
    ),
    head_table="cls.predictions.decoder",
    hub={
        "activation": "gelu_approximate",
        "norm_epsilon": 1e-12,
        "head_activation": "gelu",
        "head_norm_epsilon": 1e-5,
    },
    tokens=BERT_TOKENS,
)
