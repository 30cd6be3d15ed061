"""DistilBERT: BERT without token types, half as deep."""

from __future__ import annotations

from typing import Final

from kerasgen.models.encoders import bert
from kerasgen.models.encoders.base import EncoderArchitecture, Names

_LAYER: Final = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "feedforward_norm": "output_layer_norm",
}

ARCHITECTURE: Final = EncoderArchitecture(
    name="distilbert",
    model_class="DistilBertForMaskedLM",
    task="DistilBertMaskedLM",
    prefix="distilbert.",
    parts={
        "embedding.tokens": Names("distilbert.embeddings.word_embeddings", "backbone.token_embedding"),
        "embedding.positions": Names(
            "distilbert.embeddings.position_embeddings", "backbone.embeddings.position_embedding"
        ),
        "embedding.norm": Names("distilbert.embeddings.LayerNorm", "backbone.embeddings_layer_norm"),
        "head.dense": Names("vocab_transform", bert.KERAS_HEAD["head.dense"]),
        "head.norm": Names("vocab_layer_norm", bert.KERAS_HEAD["head.norm"]),
        "head.bias": Names("vocab_projector.bias", bert.KERAS_HEAD["head.bias"]),
    },
    layer_parts={role: Names(name, bert.KERAS_LAYER_PARTS[role]) for role, name in _LAYER.items()},
    layer="distilbert.transformer.layer.{}.",
    keras_layer="backbone.transformer_layers.{}",
    keys={
        "vocabulary_size": "vocab_size",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "hidden_dim": "dim",
        "intermediate_dim": "hidden_dim",
        "max_positions": "max_position_embeddings",
        "activation": "activation",
        "dropout": "dropout",
    },
    defaults={"activation": "gelu", "max_position_embeddings": 512, "dropout": 0.1},
    fixed={"tie_word_embeddings": (True,)},
    ignored=(r"distilbert\.embeddings\.position_ids",),
    head_table="vocab_projector",
    hub={"activation": "gelu", "norm_epsilon": 1e-12, "head_activation": "gelu", "head_norm_epsilon": 1e-5},
    tokens=bert.BERT_TOKENS,
)
