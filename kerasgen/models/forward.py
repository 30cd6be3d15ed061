"""Tokens become nats: a causal model's loss at each target, with documents that share a row kept apart.

The one forward pass that training, validation and scoring use. Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kerasgen.models.base import LanguageModel


def can_pack(model: LanguageModel) -> bool:
    """Say whether documents may share a row: it takes a forward pass with segments and positions for the family."""
    return type(model.backbone).__name__ in ("GPT2Backbone", "OPTBackbone")


class TokenLosses(keras.Model):  # type: ignore[misc]
    """The negative log-likelihood of each target under a causal model.

    Called with a mapping of `token_ids`, `targets`, `positions` and `segment_ids`, each int32
    `(batch, sequence_length)` as in `kerasgen.tokens.packing.TokenBlock`, it returns float32
    `(batch, sequence_length)`, in nats; what stands at padded positions means nothing.

    Args:
        model: whose `causal_lm` becomes a layer of this one; the weights are shared, not copied.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(name="token_losses")
        self.causal_lm = model.causal_lm
        self.packs = can_pack(model)

    def build(self, input_shape: Any) -> None:
        """Do nothing: KerasHub's models are built when they are made."""
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return the nats of each target, float32 `(batch, sequence_length)`."""
        if self.packs:
            hidden = _packed_hidden(self.causal_lm.backbone, inputs, training=training)
            logits = self.causal_lm.backbone.token_embedding(hidden, reverse=True)
        else:
            padding_mask = ops.cast(inputs["segment_ids"] > 0, "int32")
            logits = self.causal_lm({"token_ids": inputs["token_ids"], "padding_mask": padding_mask}, training=training)
        return nats(logits, inputs["targets"])


def nats(logits: Any, targets: Any) -> Any:
    """Return -log p of each target, float32 `(…,)`, from logits `(…, vocabulary_size)` of any float type.

    The reduction is in float32, and the target's logit is gathered: Keras's own loss builds a one-hot of the
    vocabulary on JAX.
    """
    logits = ops.cast(logits, "float32")
    chosen = ops.squeeze(ops.take_along_axis(logits, ops.expand_dims(targets, -1), axis=-1), axis=-1)
    return ops.logsumexp(logits, axis=-1) - chosen


def _packed_hidden(backbone: Any, inputs: Mapping[str, Any], *, training: bool | None) -> Any:
    """The last hidden states of a GPT-2 or OPT backbone under a block-diagonal causal mask.

    Returns:
        Float `(batch, sequence_length, hidden_dim)`.
    """
    segment_ids = inputs["segment_ids"]
    same_document = ops.equal(ops.expand_dims(segment_ids, 2), ops.expand_dims(segment_ids, 1))
    if hasattr(backbone, "embeddings"):  # OPT keeps both embeddings in one layer, and has no dropout on their sum
        hidden = backbone.embeddings(inputs["token_ids"], positions=inputs["positions"])
    else:
        tokens = backbone.token_embedding(inputs["token_ids"])
        positions = backbone.position_embedding(tokens, positions=inputs["positions"])
        hidden = backbone.embeddings_add((tokens, positions))
        hidden = backbone.embeddings_dropout(hidden, training=training)
    for layer in backbone.transformer_layers:
        hidden = layer(hidden, decoder_attention_mask=same_document, training=training)
    return backbone.layer_norm(hidden)


def set_precision(causal_lm: Any, precision: str) -> None:
    """Let every layer compute under another dtype policy; the variables stay float32.

    Args:
        causal_lm: a KerasHub causal model.
        precision: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`.
    """
    policy = keras.dtype_policies.DTypePolicy(precision)
    for layer in causal_lm._flatten_layers():
        if isinstance(layer, keras.layers.Layer):
            layer.dtype_policy = policy
