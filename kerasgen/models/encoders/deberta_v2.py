"""DeBERTa-v3: no learned positions, but rows of a table for the distance of two tokens in every attention."""

from __future__ import annotations

from typing import Final

from kerasgen.models.encoders import bert
from kerasgen.models.encoders.base import EncoderArchitecture, Names

_LAYER: Final = {
    "query": ("attention.self.query_proj", "_self_attention_layer._query_dense"),
    "key": ("attention.self.key_proj", "_self_attention_layer._key_dense"),
    "value": ("attention.self.value_proj", "_self_attention_layer._value_dense"),
    "output": ("attention.output.dense", "_self_attention_layer._output_dense"),
}

ARCHITECTURE: Final = EncoderArchitecture(
    name="deberta-v2",
    model_class="DebertaV2ForMaskedLM",
    task="DebertaV3MaskedLM",
    prefix="deberta.",
    parts={
        "embedding.tokens": Names("deberta.embeddings.word_embeddings", "backbone.token_embedding"),
        "embedding.norm": Names("deberta.embeddings.LayerNorm", "backbone.embeddings_layer_norm"),
        "relative.table": Names("deberta.encoder.rel_embeddings", "backbone.relative_embeddings.rel_embeddings"),
        "relative.norm": Names("deberta.encoder.LayerNorm", "backbone.relative_embeddings.layer_norm"),
        "head.dense": Names("cls.predictions.transform.dense", bert.KERAS_HEAD["head.dense"]),
        "head.norm": Names("cls.predictions.transform.LayerNorm", bert.KERAS_HEAD["head.norm"]),
        "head.bias": Names("cls.predictions.bias", bert.KERAS_HEAD["head.bias"]),
    },
    layer_parts={**bert.LAYER_PARTS, **{role: Names(*names) for role, names in _LAYER.items()}},
    layer="deberta.encoder.layer.{}.",
    keras_layer="backbone.transformer_layers.{}",
    keys={
        **{name: key for name, key in bert.KEYS.items() if name != "num_segments"},
        "relative_buckets": "position_buckets",
    },
    defaults={**bert.DEFAULTS, "layer_norm_eps": 1e-7},
    fixed={
        "relative_attention": (True,),
        "position_biased_input": (False,),
        "pos_att_type": (["p2c", "c2p"], ["c2p", "p2c"], "p2c|c2p", "c2p|p2c"),
        "share_att_key": (True,),
        "norm_rel_ebd": ("layer_norm",),
        "type_vocab_size": (0,),
        "max_relative_positions": (-1,),
        "legacy": (True,),
        "conv_kernel_size": (0,),
        "tie_word_embeddings": (True,),
    },
    ignored=(
        r"deberta\.embeddings\.position_ids",
        r"cls\.predictions\.decoder\.bias",
        r"mask_predictions\..*",
        r"lm_predictions\..*",
    ),
    head_table="cls.predictions.decoder",
    hub={"activation": "gelu", "norm_epsilon": 1e-7, "head_activation": "gelu", "head_norm_epsilon": 1e-5},
    tokens=bert.BERT_TOKENS,
)
