"""RoBERTa, whose table of positions begins with two rows that no text uses."""

from __future__ import annotations

from typing import Final

from kerasgen.models.encoders import bert
from kerasgen.models.encoders.base import EncoderArchitecture, Names, SpecialNames

TOKENS: Final = SpecialNames("<s>", "</s>", "<pad>", "<mask>", "<unk>")

ARCHITECTURE: Final = EncoderArchitecture(
    name="roberta",
    model_class="RobertaForMaskedLM",
    task="RobertaMaskedLM",
    prefix="roberta.",
    parts={
        "embedding.tokens": Names("roberta.embeddings.word_embeddings", "backbone.token_embedding"),
        "embedding.positions": Names(
            "roberta.embeddings.position_embeddings", "backbone.embeddings.position_embedding"
        ),
        "embedding.segments": Names("roberta.embeddings.token_type_embeddings"),
        "embedding.norm": Names("roberta.embeddings.LayerNorm", "backbone.embeddings_layer_norm"),
        "head.dense": Names("lm_head.dense", bert.KERAS_HEAD["head.dense"]),
        "head.norm": Names("lm_head.layer_norm", bert.KERAS_HEAD["head.norm"]),
        "head.bias": Names("lm_head.bias", bert.KERAS_HEAD["head.bias"]),
    },
    layer_parts=bert.LAYER_PARTS,
    layer="roberta.encoder.layer.{}.",
    keras_layer="backbone.transformer_layers.{}",
    keys=bert.KEYS,
    defaults=bert.DEFAULTS,
    fixed={**bert.FIXED, "pad_token_id": (1,)},
    position_offset=2,
    folds_segments=True,
    head_activation="gelu",
    head_table="lm_head.decoder",
    ignored=(r"roberta\.pooler\..*", r"roberta\.embeddings\.position_ids", r"lm_head\.decoder\.bias"),
    hub={"activation": "gelu", "norm_epsilon": 1e-5, "head_activation": "gelu", "head_norm_epsilon": 1e-5},
    tokens=TOKENS,
)
