"""Tokens become nats: a causal model's loss at each target, with documents that share a row kept apart.

The one forward pass that training, validation and scoring use. Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras import ops

from kerasgen.models import keras_decoder, packed
from kerasgen.models.base import LanguageModel, MaskedLanguageModel, computing_layers
from kerasgen.models.cross_entropy import (
    RoutedLoss,
    WeightedLoss,
    drawn,
    drawn_tokens,
    nll,
    plain_weighted_loss,
    target_nats,
    token_nll,
    weighted_loss,
)
from kerasgen.models.keras_decoder import KerasDecoder


def can_pack(model: LanguageModel) -> bool:
    """Say whether documents may share a row: it takes a forward pass with segments and positions for what it is."""
    if isinstance(model, MaskedLanguageModel):
        return True
    decoder = decoder_of(model)
    return decoder is not None and packed.takes(decoder)


def decoder_of(model: LanguageModel) -> KerasDecoder | None:
    """Return the decoder whose variables a model holds, or None where nothing describes it."""
    if isinstance(model, MaskedLanguageModel):
        return None
    if model.container is not None:
        found: KerasDecoder = model.container.decoder
        return found
    return keras_decoder.of_backbone(model.backbone) if _is_stock(model.causal_lm) else None


def _is_stock(causal_lm: Any) -> bool:
    """Whether the task and its backbone are KerasHub's own: a person's subclass may compute something else."""
    return all(type(part).__module__.startswith("keras_hub.") for part in (causal_lm, causal_lm.backbone))


class Prediction(NamedTuple):
    """Predictions of a model at each position: hidden states and the table that makes logits of them, or logits.

    Args:
        hidden: float `(batch, sequence_length, hidden_dim)`, or None.
        table: float `(vocabulary_size, hidden_dim)`, or None.
        soft_cap: of the logits, or None.
        table_gradient: whether the table is trained.
        logits: float `(batch, sequence_length, vocabulary_size)` where no table makes them, else None.
        router_loss: what unbalanced routers cost, or None.
    """

    hidden: Any = None
    table: Any = None
    soft_cap: float | None = None
    table_gradient: bool = False
    logits: Any = None
    router_loss: Any = None

    def nats(self, targets: Any, weights: Any) -> Any:
        """Return -log p of each target, which can be differentiated; 0 where its weight is 0."""
        if self.logits is not None:
            return ops.where(weights != 0, nll(self.logits, targets), 0.0)
        return target_nats(
            self.hidden, self.table, targets, weights, table_gradient=self.table_gradient, soft_cap=self.soft_cap
        )

    def drawn(self, uniform: Any) -> Any:
        """Return a token drawn at each position, as `cross_entropy.drawn_tokens` does."""
        if self.logits is not None:
            return drawn(self.logits, uniform)
        return drawn_tokens(self.hidden, self.table, uniform, soft_cap=self.soft_cap)


class TokenLosses(keras.Model):  # type: ignore[misc]
    """The negative log-likelihood of each target under a causal model.

    Called with a mapping of `token_ids`, `targets`, `positions` and `segment_ids`, each int32
    `(batch, sequence_length)` as in `kerasgen.tokens.packing.TokenBlock`, it returns float32
    `(batch, sequence_length)`, in nats; what stands at padded positions means nothing.

    Args:
        model: whose Keras model becomes a layer of this one; the weights are shared, not copied.
        remat: while training, keep only what enters each layer, and compute the layer again for its gradient.
    """

    def __init__(self, model: LanguageModel, *, remat: bool = False) -> None:
        super().__init__(name="token_losses")
        self.remat = remat
        self.causal_lm = model.network
        decoder = decoder_of(model)
        self.packs = decoder is not None and packed.takes(decoder)
        # Its layers are the model's, which Keras has tracked above.
        object.__setattr__(self, "_decoder", decoder if self.packs else None)
        # The models are built when they are made. On JAX Keras would first compute a batch to build this one, operation
        # by operation, each of which is a program: 1.5 s of the processor for the starter.
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Return the nats of each target, float32 `(batch, sequence_length)`."""
        hidden = self.hidden(inputs, training=training)
        if hidden is None:
            return nll(self._logits(inputs, training=training), inputs["targets"])
        embedding = self._embedding()
        if _is_quantized(embedding):  # its table holds codes, which mean nothing without their scales
            return nll(embedding(hidden, reverse=True), inputs["targets"])
        hidden, table, cap, _ = self._output(hidden)
        return token_nll(hidden, table, inputs["targets"], soft_cap=cap)

    def logits(self, inputs: Mapping[str, Any]) -> Any:
        """Return the logits at each position, `(batch, sequence_length, vocabulary_size)`: much memory for many."""
        hidden = self.hidden(inputs)
        if hidden is None:
            return self._logits(inputs, training=None)
        embedding = self._embedding()
        if _is_quantized(embedding):
            return embedding(hidden, reverse=True)
        hidden, table, cap, _ = self._output(hidden)
        logits = ops.matmul(ops.cast(hidden, "float32"), ops.transpose(ops.cast(table, "float32")))
        return logits if cap is None else ops.tanh(logits / cap) * cap

    def weighted(self, inputs: Mapping[str, Any], *, training: bool | None = None) -> WeightedLoss | RoutedLoss:
        """Return the loss that training differentiates: each target's nats times its `inputs["weights"]`, summed.

        Of a mixture of experts it says beside it what unbalanced routers cost.
        """
        router_loss = None
        if self._decoder is not None:
            inputs = packed.without_padding(self._decoder, inputs)
            hidden, router_loss = packed.with_router_loss(self._decoder, inputs, training=training, remat=self.remat)
        else:
            hidden = self.hidden(inputs, training=training)
        if hidden is None:
            logits = self._logits(inputs, training=training)
            found = plain_weighted_loss(logits, inputs["targets"], inputs["weights"])
        else:
            hidden, table, cap, is_trained = self._output(hidden)
            found = weighted_loss(
                hidden, table, inputs["targets"], inputs["weights"], table_gradient=is_trained, soft_cap=cap
            )
        router_loss = self._added() if router_loss is None else router_loss
        return found if router_loss is None else RoutedLoss(*found, router_loss)

    def prediction(self, inputs: Mapping[str, Any], *, training: bool | None = None) -> Prediction:
        """Return what is predicted at each position, for losses that are no sum over targets.

        Args:
            inputs: as `laid_out` returns them.
            training: whether dropout is on.
        """
        router_loss = None
        if self._decoder is not None:
            hidden, router_loss = packed.with_router_loss(self._decoder, inputs, training=training, remat=self.remat)
        else:
            hidden = self.hidden(inputs, training=training)
        if hidden is None:
            found = Prediction(logits=self._logits(inputs, training=training))
        else:
            found = Prediction(*self._output(hidden))
        return found._replace(router_loss=self._added() if router_loss is None else router_loss)

    def laid_out(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return inputs without padded positions where the forward pass can do without them, in `training` too."""
        return inputs if self._decoder is None else packed.without_padding(self._decoder, inputs)

    @property
    def routes(self) -> bool:
        """Whether `weighted` says what unbalanced routers cost; of KerasHub's own layers only once they computed."""
        experts = None if self._decoder is None else self._decoder.config.feedforward.experts
        return experts is not None and experts.router_loss > 0

    def _added(self) -> Any:
        """What KerasHub's layers of experts added by `add_loss` in this forward pass, or None."""
        if self.remat or (self._decoder is not None and packed.is_fast(self._decoder)):
            return None
        added = [loss for layer in self.causal_lm._flatten_layers() for loss in layer._get_own_losses()]
        return sum(ops.cast(loss, "float32") for loss in added) if added else None

    def hidden(self, inputs: Mapping[str, Any], *, training: bool | None = None) -> Any:
        """Return the last hidden states, `(batch, sequence_length, hidden_dim)`, if one table makes logits of them.

        They are None for a family without a description whose logits are more than one product, such as capped ones.
        """
        if self._decoder is not None:
            return packed.hidden_states(self._decoder, inputs, training=training, remat=self.remat)
        if _ends_in_a_table(self.causal_lm):
            return self.causal_lm.backbone(_unpacked(inputs), training=training)
        return None

    def _embedding(self) -> Any:
        if self._decoder is not None:
            return self._decoder.parts["embedding"]["tokens"]
        return self.causal_lm.backbone.token_embedding

    def _output(self, hidden: Any) -> tuple[Any, Any, float | None, bool]:
        """Hidden states and the table whose product is the logits but for a soft cap, that, and if it is trained."""
        if self._decoder is None:
            embedding = self._embedding()
            return hidden, _output_table(embedding), None, bool(embedding.trainable_variables)
        return packed.output(self._decoder, hidden)

    def _logits(self, inputs: Mapping[str, Any], *, training: bool | None) -> Any:
        return self.causal_lm(_unpacked(inputs), training=training)


def _unpacked(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as KerasHub's models take them, for rows of one document each."""
    return {"token_ids": inputs["token_ids"], "padding_mask": ops.cast(inputs["segment_ids"] > 0, "int32")}


def _ends_in_a_table(causal_lm: Any) -> bool:
    """Whether the logits are the backbone's output times the token embedding's table, and nothing else."""
    embedding = getattr(causal_lm.backbone, "token_embedding", None)
    if (
        not _is_stock(causal_lm)
        or embedding is None
        or len(causal_lm.outputs) != 1
        or getattr(embedding, "logit_soft_cap", None) is not None
        or _is_quantized(embedding)
    ):
        return False
    last = causal_lm.outputs[0]._keras_history
    before = last.operation._inbound_nodes[last.node_index].input_tensors[0]._keras_history.operation
    return last.operation is embedding and before is causal_lm.backbone and hasattr(embedding, "tie_weights")


def _is_quantized(layer: Any) -> bool:
    return getattr(layer, "quantization_mode", None) is not None


def _output_table(embedding: Any) -> Any:
    """The table whose product with hidden states gives logits, float32 `(vocabulary_size, hidden_dim)`."""
    if embedding.tie_weights:
        return ops.convert_to_tensor(embedding.embeddings)
    return ops.transpose(embedding.reverse_embeddings)


@contextmanager
def computing_in(causal_lm: Any, precision: str) -> Iterator[None]:
    """Let every layer compute under another dtype policy meanwhile; see `set_precision`."""
    before = causal_lm.dtype_policy.name
    try:
        set_precision(causal_lm, precision)
        yield
    finally:
        set_precision(causal_lm, before)


def set_precision(causal_lm: Any, precision: str) -> None:
    """Let every layer compute under another dtype policy; the variables stay float32.

    Args:
        causal_lm: a model's `network`.
        precision: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`.
    """
    policy = keras.dtype_policies.DTypePolicy(precision)
    for layer in computing_layers(causal_lm):
        if isinstance(layer, keras.layers.Layer):
            layer.dtype_policy = policy
