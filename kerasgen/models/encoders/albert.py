"""ALBERT: factorised embeddings, and blocks that share their weights."""

from __future__ import annotations

from typing import Final

from kerasgen.models.encoders import bert
from kerasgen.models.encoders.base import EncoderArchitecture, Names, SpecialNames

_LAYER: Final = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "output": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "up": "ffn",
    "down": "ffn_output",
    "feedforward_norm": "full_layer_layer_norm",
}

ARCHITECTURE: Final = EncoderArchitecture(
    name="albert",
    model_class="AlbertForMaskedLM",
    task="AlbertMaskedLM",
    prefix="albert.",
    parts={
        "embedding.tokens": Names("albert.embeddings.word_embeddings", "backbone.token_embedding"),
        "embedding.positions": Names("albert.embeddings.position_embeddings", "backbone.position_embedding"),
        "embedding.segments": Names("albert.embeddings.token_type_embeddings", "backbone.segment_embedding"),
        "embedding.norm": Names("albert.embeddings.LayerNorm", "backbone.embeddings_layer_norm"),
        "embedding.projection": Names("albert.encoder.embedding_hidden_mapping_in", "backbone.embeddings_projection"),
        "head.dense": Names("predictions.dense", bert.KERAS_HEAD["head.dense"]),
        "head.norm": Names("predictions.LayerNorm", bert.KERAS_HEAD["head.norm"]),
        "head.bias": Names("predictions.bias", bert.KERAS_HEAD["head.bias"]),
    },
    layer_parts={role: Names(name, bert.KERAS_LAYER_PARTS[role]) for role, name in _LAYER.items()},
    layer="albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
    keras_layer="backbone.transformer_layers.{group}.{inner}",
    keys={
        **bert.KEYS,
        "embedding_dim": "embedding_size",
        "num_groups": "num_hidden_groups",
        "layers_per_group": "inner_group_num",
    },
    defaults={
        **bert.DEFAULTS,
        "hidden_act": "gelu_new",
        "embedding_size": 128,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "hidden_dropout_prob": 0.0,
    },
    fixed=bert.FIXED,
    head_table="predictions.decoder",
    constants={"projects_embeddings": True},
    ignored=(
        r"albert\.pooler\..*",
        r"albert\.embeddings\.position_ids",
        r"predictions\.decoder\.bias",
        r"sop_classifier\..*",
    ),
    hub={
        "projects_embeddings": True,
        "activation": "gelu_approximate",
        "norm_epsilon": 1e-12,
        "head_activation": "gelu_approximate",
        "head_norm_epsilon": 1e-5,
    },
    tokens=SpecialNames("[CLS]", "[SEP]", "<pad>", "[MASK]", "<unk>"),
)
